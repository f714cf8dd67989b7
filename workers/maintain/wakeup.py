"""Hearing at once that a tenant who had nothing to do has work again, where Postgres can be listened to.

A notification that is missed costs nothing but the rest of a pause: what there is to do is always looked up.
"""

from __future__ import annotations

import asyncio
import time
from contextlib import suppress
from datetime import timedelta

import psycopg
import structlog
from sqlalchemy import URL, NullPool
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncConnection, create_async_engine

from core.db.engine import connect_args
from workers.maintain import statements

_LEAST_SECONDS = 0.01
_DEAF_SECONDS = 5.0  # until listening is tried again
_PATIENCE_SECONDS = 10.0  # with a session that should have said by now that nothing came

log = structlog.get_logger()


class WakeListener:
    """One listening session, opened when it is needed and again when it was lost."""

    def __init__(self, url: URL) -> None:
        self._engine = create_async_engine(
            url, poolclass=NullPool, isolation_level="AUTOCOMMIT", connect_args=connect_args(url)
        )
        self._connection: AsyncConnection | None = None
        self._deaf_until = 0.0

    async def rest(self, most: timedelta) -> None:
        """Wait until somebody woke up, a few milliseconds at least, or until ``most`` has passed."""
        await asyncio.sleep(_LEAST_SECONDS)  # while all workers are busy, every job of a sleeping tenant is news
        if time.monotonic() < self._deaf_until:
            await asyncio.sleep(most.total_seconds())
            return
        # Not cancelled at the time-out, as a network that swallows everything would keep that waiting too.
        listening = asyncio.ensure_future(self._listen(most.total_seconds()))
        try:
            done, _ = await asyncio.wait({listening}, timeout=most.total_seconds() + _PATIENCE_SECONDS)
        finally:
            listening.cancel()
        if not done:
            self._connection = None
            self._turn_deaf("Postgres does not answer")
            return
        error = listening.exception()
        if isinstance(error, SQLAlchemyError | psycopg.Error):
            self._turn_deaf(str(error))
            await self.close()
        elif error is not None:
            raise error

    def _turn_deaf(self, error: str) -> None:
        log.warning("wakeup.deaf", error=error, seconds=_DEAF_SECONDS)
        self._deaf_until = time.monotonic() + _DEAF_SECONDS

    async def close(self) -> None:
        """Stop listening."""
        connection, self._connection = self._connection, None
        if connection is not None:
            with suppress(SQLAlchemyError, psycopg.Error):
                await connection.close()

    async def _listen(self, seconds: float) -> None:
        if self._connection is None:
            self._connection = await self._engine.connect()
            await self._connection.execute(statements.LISTEN)
        session = (await self._connection.get_raw_connection()).driver_connection
        assert isinstance(session, psycopg.AsyncConnection)
        async for _ in session.notifies(timeout=seconds, stop_after=1):
            pass
