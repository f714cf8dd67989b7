"""Whether the database can serve this code."""

from __future__ import annotations

from functools import cache

from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncEngine

from core.db.migrations import SCRIPTS


async def is_migrated(engine: AsyncEngine) -> bool:
    """Whether Postgres answers and has every migration that this code knows.

    A revision from a newer release counts as ready: migrations fit the code of the release before.
    """
    head, known = _revisions()
    try:
        async with engine.connect() as connection:
            revision = await connection.run_sync(_revision)
    except SQLAlchemyError:
        return False
    return revision is not None and (revision == head or revision not in known)


@cache
def _revisions() -> tuple[str | None, frozenset[str]]:
    """The newest revision, and all of them."""
    scripts = ScriptDirectory(SCRIPTS)
    return scripts.get_current_head(), frozenset(script.revision for script in scripts.walk_revisions())


def _revision(connection: Connection) -> str | None:
    return MigrationContext.configure(connection).get_current_revision()
