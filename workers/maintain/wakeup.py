"""Hearing at once that a tenant who had nothing to do has work again, where Postgres can be listened to.

A notification that is missed costs nothing but the rest of a pause: what there is to do is always looked up.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress
from datetime import timedelta

import psycopg
import structlog
from sqlalchemy import URL, NullPool
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncConnection, create_async_engine

from core.db.engine import connect_args
from workers.maintain import statements

log = structlog.get_logger()


class WakeListener:
    """One listening session, opened when it is needed and again when it was lost."""

    def __init__(self, url: URL) -> None:
        self._engine = create_async_engine(
            url, poolclass=NullPool, isolation_level="AUTOCOMMIT", connect_args=connect_args(url)
        )
        self._connection: AsyncConnection | None = None

    async def rest(self, most: timedelta) -> None:
        """Wait until somebody woke up, or until ``most`` has passed."""
        try:
            await self._listen(most.total_seconds())
        except (SQLAlchemyError, psycopg.Error) as error:
            log.warning("wakeup.deaf", error=str(error))
            await self.close()
            await asyncio.sleep(most.total_seconds())

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
