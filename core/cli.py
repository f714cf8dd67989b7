"""``lockstepd``: the operator's command line.

The parts are started as ``python -m ...``, so that this module needs none of them; what a command needs is imported
when it runs, so that each starts quickly and none needs what another part installs.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated

import typer
from sqlalchemy.exc import OperationalError

from core.config import Settings, child_environment
from core.embedded.errors import EmbeddedError
from core.errors import LockstepError
from core.members.roles import Role
from core.tenants.safety import SafetyPolicy

if TYPE_CHECKING:
    from sqlalchemy.orm import Session, sessionmaker

    from core.embedded.stack import Stack

app = typer.Typer(
    help="Run and administer a Lockstep server.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
admin = typer.Typer(help="Tenants, their keys, users and policies.", no_args_is_help=True)
app.add_typer(admin, name="admin")


def main() -> None:
    """Run the command line; an error that the operator can act on is a message, not a traceback."""
    try:
        app()
    except (EmbeddedError, LockstepError) as error:
        _fail(str(error))
    except OperationalError as error:
        _fail(f"Postgres does not answer: start `lockstepd up`, or set LOCKSTEP_DATABASE_URL ({error.orig})")


@app.command()
def up() -> None:
    """Start everything on this machine and keep it running until Ctrl-C."""
    from core.embedded.stack import run_stack

    settings = Settings()
    _say("Starting Lockstep ...")
    with run_stack(settings, report=_say) as stack:
        if stack.wait_until_ready():
            _say(_status(stack))
            stack.watch()
        _say("Stopping ...")


@app.command()
def demo() -> None:
    """Start everything, train a concept from pictures and render it; the data stay for `lockstepd up`."""
    from core.embedded.stack import run_stack

    settings = Settings()
    if "webhook_allow" not in settings.model_fields_set:  # the demo receives its webhooks on this machine
        settings = settings.model_copy(update={"webhook_allow": ("127.0.0.0/8",)})
    _say("Starting Lockstep ...")
    with run_stack(settings, report=_say) as stack:
        code = _run_demo(stack) if stack.wait_until_ready() else 1
    sys.exit(code)


@app.command()
def serve() -> None:
    """Run the API alone."""
    _become("api")


@app.command()
def worker() -> None:
    """Run one worker alone."""
    _become("workers.run")


@app.command()
def maintain() -> None:
    """Run the maintenance loops alone."""
    _become("workers.maintain")


@app.command()
def migrate() -> None:
    """Bring the database to the newest tables."""
    from core.db import migrations
    from core.embedded.stack import running_settings

    migrations.upgrade(running_settings(Settings()).owner_dsn)


@admin.command()
def create_tenant(name: str) -> None:
    """Make a tenant and print its id and its first API key; the key is shown this once."""
    from core.tenants import keys, provisioning

    with _owner_session() as session:
        tenant = provisioning.create_tenant(session, name)
        key = provisioning.create_key(session, tenant.id, "first key", keys.SCOPES)
        _note(session, "tenant.created", tenant.id, name=name)
        typer.echo(f"tenant: {tenant.id}\nkey: {key}")


@admin.command()
def create_key(tenant: str, name: str = "operator's key") -> None:
    """Make one more API key for a tenant and print it; it is shown this once."""
    from core.tenants import keys, provisioning

    with _owner_session() as session:
        key = provisioning.create_key(session, tenant, name, keys.SCOPES)
        _note(session, "api_key.created", tenant, name=name, hint=keys.hint(key))
        typer.echo(f"key: {key}")


@admin.command()
def create_user(
    tenant: str,
    email: str,
    *,
    role: Annotated[Role, typer.Option(help="What he may do.")] = Role.OWNER,
    name: Annotated[str, typer.Option(help="For people.")] = "",
    password: Annotated[str, typer.Option(prompt=True, hide_input=True, confirmation_prompt=True)],
) -> None:
    """Make somebody a member of a tenant, with this password; a user who exists gets it too, and is signed out."""
    from core.members import membership, passwords
    from core.operations.audit import Actor

    if "@" not in email or len(password) < passwords.SHORTEST:
        _fail(f"an email address and a password of at least {passwords.SHORTEST} characters are needed")
    stored = passwords.hashed(password)
    with _owner_session() as session:
        operator = Actor("lockstepd")
        user_id = membership.put_user(session, operator, tenant, email, role=role, name=name, password_hash=stored)
        typer.echo(f"user: {user_id}")


@admin.command()
def make_operator(tenant: str, revoke: Annotated[bool, typer.Option(help="No longer.")] = False) -> None:
    """Let a tenant's keys of scope `admin` run the deployment, through /v1/admin; see docs/operations.md."""
    from core.tenants import provisioning

    with _owner_session() as session:
        provisioning.make_operator(session, tenant, is_operator=not revoke)
        _note(session, "tenant.changed", tenant, is_operator=not revoke)
        typer.echo(f"operator: {'no' if revoke else 'yes'}")


@admin.command()
def set_safety(
    tenant: str, policy: Annotated[SafetyPolicy, typer.Argument(help="What happens to its unsafe pictures.")]
) -> None:
    """Say whether a tenant's pictures are judged, and whether unsafe ones are withheld; see docs/safety.md."""
    from core.tenants import provisioning

    with _owner_session() as session:
        provisioning.set_safety(session, tenant, policy)
        _note(session, "tenant.changed", tenant, safety=policy)
        typer.echo(f"safety: {policy}")
    if policy is not SafetyPolicy.OFF and Settings().safety_checker is None:
        _say("Where a worker has no LOCKSTEP_SAFETY_CHECKER, as here, this tenant's generations will fail.")


@admin.command()
def set_retention(
    tenant: str,
    *,
    jobs: Annotated[int | None, typer.Option(min=0, help="Days its ended jobs are kept.")] = None,
    events: Annotated[int | None, typer.Option(min=0, help="Days its events are kept.")] = None,
    files: Annotated[int | None, typer.Option(min=0, help="Days that what its jobs made is kept.")] = None,
) -> None:
    """Say how long a tenant's things are kept: 0 for ever, what is left out as the settings have it."""
    from core.tenants import provisioning

    with _owner_session() as session:
        provisioning.set_retention(session, tenant, jobs=jobs, events=events, files=files)
        named = {"jobs": jobs, "events": events, "files": files}
        _note(session, "tenant.changed", tenant, **{f"keep_{name}_days": days for name, days in named.items()})
        typer.echo("kept: " + ", ".join(f"{name} {_days(days)}" for name, days in named.items()))


@admin.command()
def export_tenant(
    tenant: str, to: Annotated[typer.FileBinaryWrite, typer.Argument(help="The zip to write; `-` is standard output.")]
) -> None:
    """Write all that a tenant has into a zip: its rows as JSON lines, and its files; see docs/tenancy.md."""
    from core.embedded.stack import running_settings
    from core.leaving.export import export_tenant
    from core.storage.s3 import ObjectStore

    settings = running_settings(Settings())
    with _owner_sessions(settings) as sessions:
        told = export_tenant(sessions, ObjectStore.from_settings(settings), tenant, to)
        with sessions.begin() as session:
            _note(session, "tenant.exported", tenant, files=told["files"])
    _say(f"rows: {sum(told['rows'].values())}, files: {told['files']}, missing: {len(told['missing_files'])}")


@admin.command()
def delete_tenant(tenant: str, yes: Annotated[bool, typer.Option("--yes", help="Ask nothing.")] = False) -> None:
    """Delete a tenant with all it has: rows, files, users who belong nowhere else. The audit log stays."""
    from core.embedded.stack import running_settings
    from core.leaving.deletion import delete_tenant
    from core.operations.audit import Actor
    from core.storage.s3 import ObjectStore

    if not yes:
        typer.confirm(f"Delete {tenant} with everything it has, for good?", abort=True, err=True)
    settings = running_settings(Settings())
    with _owner_sessions(settings) as sessions:
        gone = delete_tenant(sessions, ObjectStore.from_settings(settings), Actor("lockstepd"), tenant)
    typer.echo(f"deleted: {gone.rows} rows, {gone.objects} objects")


def _days(days: int | None) -> str:
    return "as usual" if days is None else f"{days} days" if days else "for ever"


@admin.command()
def check(
    newest: Annotated[int, typer.Option(help="How many of the newest jobs, attempts and events are looked at.")] = (
        1_000_000
    ),
    objects: Annotated[int, typer.Option(help="Read back so many stored files, drawn at random.")] = 0,
) -> None:
    """Say whether everything that must always hold does, and what breaks it; exits with 1 if anything does."""
    from core.embedded.stack import running_settings
    from core.invariants import checks
    from core.storage.s3 import ObjectStore

    settings = running_settings(Settings())
    with _owner_sessions(settings) as sessions:
        found = {
            f"{finding.invariant.code} {finding.invariant.name}": (finding.invariant.says, finding.ids)
            for finding in checks.check(sessions, newest=newest)
        }
        if objects:
            unsound = checks.unsound_files(sessions, ObjectStore.from_settings(settings), count=objects)
            found["I6 stored-files"] = ("objects are there, with the bytes they had", unsound)
    for name, (says, ids) in found.items():
        typer.echo(f"{'BROKEN' if ids else 'holds ':6}  {name:22}  {says}")
        for broken in ids:
            typer.echo(f"          {broken}")
    sys.exit(1 if any(ids for _, ids in found.values()) else 0)


def _run_demo(stack: Stack) -> int:
    """Run the demo against ``stack`` with a key of its own; its exit code."""
    from core.tenants import keys, provisioning

    with _owner_session(stack.settings) as session:
        tenant = provisioning.create_tenant(session, "demo")
        key = provisioning.create_key(session, tenant.id, "demo", keys.SCOPES)
    process = subprocess.Popen(
        [sys.executable, "-m", "infra.demo", "--url", stack.settings.base_url],
        env={**child_environment(stack.settings), "LOCKSTEP_API_KEY": key},
    )
    try:
        stack.watch(until=lambda: process.poll() is not None)
    finally:
        process.terminate()
        code = process.wait()
    _say(f"The data stay in {stack.settings.data_dir}: `lockstepd up` finds them again.")
    return code


def _note(session: Session, action: str, tenant: str, **after: object) -> None:
    """Write into the audit log what this command does to a tenant."""
    from core.operations.audit import Actor, note

    note(session, Actor("lockstepd"), action, tenant, tenant_id=tenant, after=after)


@contextmanager
def _owner_session(settings: Settings | None = None) -> Iterator[Session]:
    """One transaction as the role that owns the tables, by default in the deployment that runs here."""
    from core.embedded.stack import running_settings

    with _owner_sessions(settings or running_settings(Settings())) as sessions, sessions.begin() as session:
        yield session


@contextmanager
def _owner_sessions(settings: Settings) -> Iterator[sessionmaker[Session]]:
    """Transactions as the role that owns the tables."""
    from sqlalchemy.orm import sessionmaker

    from core.db.engine import sync_engine

    engine = sync_engine(settings.owner_dsn)
    try:
        yield sessionmaker(engine)
    finally:
        engine.dispose()


def _become(module: str) -> None:
    """Replace this process by ``python -m module``, with the settings of the deployment that runs here."""
    from core.embedded.stack import running_settings

    arguments = [sys.executable, "-m", module]
    os.execve(sys.executable, arguments, child_environment(running_settings(Settings())))  # noqa: S606 - no shell is wanted


def _status(stack: Stack) -> str:
    url, folder = stack.settings.base_url, stack.settings.data_dir
    return f"""Lockstep is ready.
  API        {url}
  Data       {folder}
  Logs       {folder / "logs"}
  A key      lockstepd admin create-tenant NAME
Ctrl-C stops it."""


def _say(text: str) -> None:
    """Tell the operator; standard output is for what a command answers."""
    typer.echo(text, err=True)


def _fail(text: str) -> None:
    _say(f"lockstepd: {text}")
    sys.exit(1)


if __name__ == "__main__":
    main()
