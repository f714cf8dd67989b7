"""``lockstepd up``, ``demo`` and the parts alone."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import TYPE_CHECKING

import typer

from core.cli.common import owner_session, say
from core.config import Settings, child_environment

if TYPE_CHECKING:
    from core.embedded.stack import Stack

running = typer.Typer()


@running.command()
def up() -> None:
    """Start everything on this machine and keep it running until Ctrl-C."""
    from core.embedded.stack import run_stack

    settings = Settings()
    say("Starting Lockstep ...")
    with run_stack(settings, report=say) as stack:
        if stack.wait_until_ready():
            say(_status(stack))
            stack.watch()
        say("Stopping ...")


@running.command()
def demo() -> None:
    """Start everything, train a concept from pictures and render it; the data stay for `lockstepd up`."""
    from core.embedded.stack import run_stack

    settings = Settings()
    if "webhook_allow" not in settings.model_fields_set:  # the demo receives its webhooks on this machine
        settings = settings.model_copy(update={"webhook_allow": ("127.0.0.0/8",)})
    say("Starting Lockstep ...")
    with run_stack(settings, report=say) as stack:
        code = _run_demo(stack) if stack.wait_until_ready() else 1
    sys.exit(code)


@running.command()
def serve() -> None:
    """Run the API alone."""
    _become("api")


@running.command()
def worker() -> None:
    """Run one worker alone."""
    _become("workers.run")


@running.command()
def maintain() -> None:
    """Run the maintenance loops alone."""
    _become("workers.maintain")


@running.command()
def migrate() -> None:
    """Bring the database to the newest tables."""
    from core.db import migrations
    from core.embedded.stack import running_settings

    migrations.upgrade(running_settings(Settings()).owner_dsn)


def _run_demo(stack: Stack) -> int:
    """Run the demo against ``stack`` with a key of its own; its exit code."""
    from core.tenants import keys, provisioning

    with owner_session(stack.settings) as session:
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
    say(f"The data stay in {stack.settings.data_dir}: `lockstepd up` finds them again.")
    return code


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
