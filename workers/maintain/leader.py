"""One maintainer at a time: whoever holds an advisory lock in a database session of its own.

Losing the lock without noticing does no harm, since every loop claims what it works on; the lock only keeps several
maintainers from doing the same looking around. It needs a direct connection: a transaction pooler gives away sessions.
"""

from __future__ import annotations

import asyncio

from sqlalchemy import URL, NullPool
from sqlalchemy.ext.asyncio import AsyncConnection, create_async_engine

from core.db.engine import connect_args
from workers.maintain import statements

_TRY_SECONDS = 1.0
_WORD_SECONDS = 2.0  # between two words to the server, which ends a session that is silent for ten seconds


class Leader:
    """A candidate, and the leader while it holds the lock. Its methods raise SQLAlchemyError when Postgres is away."""

    def __init__(self, url: URL) -> None:
        # Unpooled, so that closing the connection ends the session, and the lock with it.
        self._engine = create_async_engine(
            url, poolclass=NullPool, isolation_level="AUTOCOMMIT", connect_args=connect_args(url)
        )
        self._connection: AsyncConnection | None = None

    async def acquire(self) -> None:
        """Wait until this process leads."""
        await self.resign()
        self._connection = await self._engine.connect()
        await self._connection.execute(statements.END_WHEN_SILENT)
        while True:
            if await self._connection.scalar(statements.TRY_TO_LEAD):
                return
            await asyncio.sleep(_TRY_SECONDS)

    async def hold(self) -> None:
        """Lead until the session is lost, which raises."""
        assert self._connection is not None
        while True:
            await self._connection.execute(statements.STILL_THERE)
            await asyncio.sleep(_WORD_SECONDS)

    async def resign(self) -> None:
        """Let another lead."""
        connection, self._connection = self._connection, None
        if connection is not None:
            await connection.close()
