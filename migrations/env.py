"""How Alembic reaches the database: on the connection ``core.db.migrations`` hands over."""

from __future__ import annotations

from alembic import context
from sqlalchemy import Connection

from core.db.tables import METADATA


def _run(connection: Connection) -> None:
    context.configure(connection=connection, target_metadata=METADATA, transaction_per_migration=True)
    with context.begin_transaction():
        context.run_migrations()


_run(context.config.attributes["connection"])
