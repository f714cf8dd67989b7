"""``lockstepd``: the operator's command line.

The parts are started as ``python -m ...``, so that this package needs none of them; what a command needs is imported
when it runs, so that each starts quickly and none needs what another part installs.
"""

from __future__ import annotations

import typer
from sqlalchemy.exc import OperationalError

from core.cli.admin import admin
from core.cli.common import fail
from core.cli.running import running
from core.embedded.errors import EmbeddedError
from core.errors import LockstepError

app = typer.Typer(
    help="Run and administer a Lockstep server.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
app.add_typer(running)
app.add_typer(admin, name="admin")


def main() -> None:
    """Run the command line; an error that the operator can act on is a message, not a traceback."""
    try:
        app()
    except (EmbeddedError, LockstepError) as error:
        fail(str(error))
    except OperationalError as error:
        fail(f"Postgres does not answer: start `lockstepd up`, or set LOCKSTEP_DATABASE_URL ({error.orig})")
