"""Bringing a database to the newest tables, one process at a time."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from importlib.resources import files

from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.migration import MigrationContext
from sqlalchemy import URL, Connection, create_engine, text

from core.db.tables import METADATA

SCRIPTS = str(files("migrations"))

# Two servers that start together must not migrate together.
_LOCK = text("SELECT pg_advisory_lock(hashtext('lockstep.migrations'))")


def upgrade(owner_url: URL, *, revision: str = "head") -> None:
    """Run the missing migrations as the role that owns the tables; does nothing when there are none."""
    with _locked(owner_url) as connection:
        command.upgrade(_config(connection), revision)


def downgrade(owner_url: URL, *, revision: str) -> None:
    """Undo migrations down to ``revision``."""
    with _locked(owner_url) as connection:
        command.downgrade(_config(connection), revision)


def drift(connection: Connection) -> list[object]:
    """How the tables differ from the models; empty when the migrations are complete."""
    return list(compare_metadata(MigrationContext.configure(connection), METADATA))


@contextmanager
def _locked(owner_url: URL) -> Iterator[Connection]:
    engine = create_engine(owner_url)
    try:
        with engine.connect() as connection:
            connection.execute(_LOCK)  # held by the session, so it outlives this transaction
            connection.commit()
            yield connection
    finally:
        engine.dispose()


def _config(connection: Connection) -> Config:
    config = Config()
    config.set_main_option("script_location", SCRIPTS)
    config.attributes["connection"] = connection
    return config
