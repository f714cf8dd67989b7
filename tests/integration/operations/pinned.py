"""Looking at one moment from two sides: what the API tells, and what a second connection finds, of one snapshot.

The second connection exports its snapshot. The API's sessions of operators take it up in requests that ask for it, and
`lockstep_now()` is the same instant for both: figures that tell how long something has waited can then be equal to the
microsecond.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

from fastapi import FastAPI
from sqlalchemy import Connection, Engine, create_engine, event, text
from sqlalchemy.ext.asyncio import async_sessionmaker, create_async_engine
from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

from api.dependencies import Resources
from core.config import Settings

HEADERS = {"X-Pinned": "1"}
"""What asks to see the moment at hand."""

_is_pinned: ContextVar[bool] = ContextVar("pinned", default=False)

SCHEMA = """
    CREATE SCHEMA IF NOT EXISTS pinned;
    CREATE OR REPLACE FUNCTION pinned.lockstep_now() RETURNS timestamptz LANGUAGE sql STABLE AS
        $$ SELECT current_setting('pinned.now')::timestamptz $$;
    GRANT USAGE ON SCHEMA pinned TO lockstep_operator
"""


@dataclass(frozen=True)
class Moment:
    """A snapshot by its exported name, and the instant that it is looked at."""

    snapshot: str
    now: datetime

    def take_up(self, connection: Connection) -> None:
        """Make the transaction that begins here see this moment."""
        connection.exec_driver_sql(f"SET TRANSACTION SNAPSHOT '{self.snapshot}'")
        self.set_clock(connection)

    def set_clock(self, connection: Connection) -> None:
        connection.exec_driver_sql("SET LOCAL search_path = pinned, public")
        connection.exec_driver_sql("SELECT set_config('pinned.now', %s, true)", (self.now.isoformat(),))


class _Pinning:
    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and "x-pinned" in Headers(scope=scope):
            _is_pinned.set(True)  # of this request's task
        await self._app(scope, receive, send)


class Observatory:
    """Makes moments of a deployment, one at a time, and has an API look at them."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._owner: Engine = create_engine(settings.owner_dsn, isolation_level="REPEATABLE READ", pool_pre_ping=True)
        self._moment: Moment | None = None
        with self._owner.begin() as connection:
            connection.exec_driver_sql(SCHEMA)

    @contextmanager
    def moment(self) -> Iterator[Connection]:
        """A connection that sees this moment, as everything that the API tells operators meanwhile does."""
        with self._owner.begin() as connection:
            row = connection.execute(text("SELECT pg_export_snapshot() AS snapshot, clock_timestamp() AS now")).one()
            self._moment = Moment(row.snapshot, row.now)
            self._moment.set_clock(connection)
            try:
                yield connection
            finally:
                self._moment = None

    def adapt(self, app: FastAPI) -> None:
        """Have the operators' sessions of an API see the moment at hand where that is asked for."""
        engine = create_async_engine(self._settings.operator_dsn, isolation_level="REPEATABLE READ")

        @event.listens_for(engine.sync_engine, "begin")
        def take_up(connection: Connection) -> None:
            if _is_pinned.get():
                assert self._moment is not None
                self._moment.take_up(connection)

        app.add_middleware(_Pinning)

        resources: Resources = app.state.resources
        sessions: async_sessionmaker[Any] = async_sessionmaker(engine, expire_on_commit=False)
        app.state.resources = replace(resources, operator_engine=engine, operator_sessions=sessions)

    def close(self) -> None:
        self._owner.dispose()
