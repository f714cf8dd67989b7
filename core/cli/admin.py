"""``lockstepd admin``: tenants, their keys, users and policies, and whether all that must hold does."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Annotated

import typer

from core.cli.common import fail, owner_session, owner_sessions, say
from core.config import Settings
from core.members.roles import Role
from core.tenants.safety import SafetyPolicy

if TYPE_CHECKING:
    from sqlalchemy.orm import Session

admin = typer.Typer(help="Tenants, their keys, users and policies.", no_args_is_help=True)


@admin.command()
def create_tenant(name: str) -> None:
    """Make a tenant and print its id and its first API key; the key is shown this once."""
    from core.tenants import keys, provisioning

    with owner_session() as session:
        tenant = provisioning.create_tenant(session, name)
        key = provisioning.create_key(session, tenant.id, "first key", keys.SCOPES)
        _note(session, "tenant.created", tenant.id, name=name)
        typer.echo(f"tenant: {tenant.id}\nkey: {key}")


@admin.command()
def create_key(tenant: str, name: str = "operator's key") -> None:
    """Make one more API key for a tenant and print it; it is shown this once."""
    from core.tenants import keys, provisioning

    with owner_session() as session:
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
        fail(f"an email address and a password of at least {passwords.SHORTEST} characters are needed")
    stored = passwords.hashed(password)
    with owner_session() as session:
        operator = Actor("lockstepd")
        user_id = membership.put_user(session, operator, tenant, email, role=role, name=name, password_hash=stored)
        typer.echo(f"user: {user_id}")


@admin.command()
def make_operator(tenant: str, revoke: Annotated[bool, typer.Option(help="No longer.")] = False) -> None:
    """Let a tenant's keys of scope `admin` run the deployment, through /v1/admin; see docs/operations.md."""
    from core.tenants import provisioning

    with owner_session() as session:
        provisioning.make_operator(session, tenant, is_operator=not revoke)
        _note(session, "tenant.changed", tenant, is_operator=not revoke)
        typer.echo(f"operator: {'no' if revoke else 'yes'}")


@admin.command()
def set_safety(
    tenant: str, policy: Annotated[SafetyPolicy, typer.Argument(help="What happens to its unsafe pictures.")]
) -> None:
    """Say whether a tenant's pictures are judged, and whether unsafe ones are withheld; see docs/safety.md."""
    from core.tenants import provisioning

    with owner_session() as session:
        provisioning.set_safety(session, tenant, policy)
        _note(session, "tenant.changed", tenant, safety=policy)
        typer.echo(f"safety: {policy}")
    if policy is not SafetyPolicy.OFF and Settings().safety_checker is None:
        say("Where a worker has no LOCKSTEP_SAFETY_CHECKER, as here, this tenant's generations will fail.")


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

    with owner_session() as session:
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
    with owner_sessions(settings) as sessions:
        told = export_tenant(sessions, ObjectStore.from_settings(settings), tenant, to)
        with sessions.begin() as session:
            _note(session, "tenant.exported", tenant, files=told["files"])
    say(f"rows: {sum(told['rows'].values())}, files: {told['files']}, missing: {len(told['missing_files'])}")


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
    with owner_sessions(settings) as sessions:
        gone = delete_tenant(sessions, ObjectStore.from_settings(settings), Actor("lockstepd"), tenant)
    typer.echo(f"deleted: {gone.rows} rows, {gone.objects} objects")


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
    with owner_sessions(settings) as sessions:
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


def _days(days: int | None) -> str:
    return "as usual" if days is None else f"{days} days" if days else "for ever"


def _note(session: Session, action: str, tenant: str, **after: object) -> None:
    """Write into the audit log what this command does to a tenant."""
    from core.operations.audit import Actor, note

    note(session, Actor("lockstepd"), action, tenant, tenant_id=tenant, after=after)
