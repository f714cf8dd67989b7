"""Engines and sessions: asynchronous for the API, synchronous for workers.

A session that carries a tenant sets ``app.tenant_id`` at the start of every transaction; row-level security
shows it that tenant's rows and no others. A session without one sees no tenant's rows.
"""

from __future__ import annotations

import select
import time
from typing import Any, Final

from sqlalchemy import URL, Connection, Engine, create_engine, event
from sqlalchemy.exc import InvalidatePoolError
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession, create_async_engine
from sqlalchemy.orm import Session, SessionTransaction
from sqlalchemy.pool import ConnectionPoolEntry

_TENANT = "tenant_id"

# A server or a network that went away without a word is noticed within half a minute; a Unix socket needs none of it.
_LIVENESS = {
    "connect_timeout": 5,
    "keepalives": 1,
    "keepalives_idle": 10,
    "keepalives_interval": 5,
    "keepalives_count": 3,
    "tcp_user_timeout": 20_000,
}
# What the server ends by itself, so that a client that hangs cannot hold up the others.
_LIMITS = {"idle_in_transaction_session_timeout": "10s", "lock_timeout": "10s", "statement_timeout": "60s"}
# One that was used just now has its plans, so it is used again first.
_POOL: Final = {"pool_use_lifo": True}
_RESTED: Final = 1.0  # seconds without use, after which a connection is asked whether it lives
# Errors are logged; secrets, hashes and prompts are among what statements are given.
_SILENCE: Final = {"hide_parameters": True}


def sync_engine(url: URL, *, pool_size: int = 5) -> Engine:
    """An engine for workers and maintenance."""
    engine = create_engine(url, pool_size=pool_size, connect_args=connect_args(url), **_POOL, **_SILENCE)
    _notice_the_dead(engine)
    return engine


def async_engine(url: URL, *, pool_size: int = 10, statement_timeout: str | None = None) -> AsyncEngine:
    """An engine for the API."""
    arguments = connect_args(url, statement_timeout=statement_timeout)
    engine = create_async_engine(url, pool_size=pool_size, connect_args=arguments, **_POOL, **_SILENCE)
    _notice_the_dead(engine.sync_engine)
    return engine


def connect_args(url: URL, *, statement_timeout: str | None = None) -> dict[str, Any]:
    """How to connect to ``url``, within limits; those that its own ``options`` set come last, and hold."""
    own = url.query.get("options", ())
    changed = {} if statement_timeout is None else {"statement_timeout": statement_timeout}
    limits = (f"-c {name}={value}" for name, value in {**_LIMITS, **changed}.items())
    return {**_LIVENESS, "options": " ".join([*limits, *([own] if isinstance(own, str) else own)])}


def _notice_the_dead(engine: Engine) -> None:
    """Have dead connections of the pool noticed before they are used.

    SQLAlchemy's own ``pool_pre_ping`` asks Postgres each time, a fifth of what a claim exchanges with it. Whoever ends
    a connection says so, and what was said lies here unread; only what rested, and may be cut off in silence, is asked.
    """

    @event.listens_for(engine, "checkin")
    def rest(_: Any, entry: ConnectionPoolEntry) -> None:
        entry.info["rests_since"] = time.monotonic()

    @event.listens_for(engine, "checkout")
    def look(connection: Any, entry: ConnectionPoolEntry, _: Any) -> None:
        rests_since = entry.info.get("rests_since")  # none where it was just made
        if rests_since is not None and not _is_alive(engine, connection, entry, time.monotonic() - rests_since):
            raise InvalidatePoolError("a connection of the pool is dead")


def _is_alive(engine: Engine, connection: Any, entry: ConnectionPoolEntry, rested: float) -> bool:
    driver, dialect = entry.driver_connection, engine.dialect
    assert driver is not None
    try:
        return (rested < _RESTED and not _has_unread(driver.fileno())) or dialect.do_ping(connection)
    except dialect.loaded_dbapi.Error as error:
        if dialect.is_disconnect(error, connection, None):
            return False
        raise


def _has_unread(descriptor: int) -> bool:
    poll = select.poll()
    poll.register(descriptor, select.POLLIN)
    return bool(poll.poll(0))


def bind_tenant(session: Session | AsyncSession, tenant_id: str) -> None:
    """Show ``session`` this tenant's rows, from its next transaction on."""
    sync = session.sync_session if isinstance(session, AsyncSession) else session
    sync.info[_TENANT] = tenant_id


def tenant_of(session: AsyncSession) -> str:
    """The tenant that ``bind_tenant`` named."""
    tenant_id = session.sync_session.info[_TENANT]
    assert isinstance(tenant_id, str)
    return tenant_id


def show_tenant(session: Session, tenant_id: str) -> None:
    """Show this tenant's rows for the rest of the transaction."""
    _show(session.connection(), tenant_id)


@event.listens_for(Session, "after_begin")
def _set_tenant(session: Session, transaction: SessionTransaction, connection: Connection) -> None:
    tenant_id = session.info.get(_TENANT)
    if tenant_id is not None and not transaction.nested:  # a savepoint stands within one where it is set
        _show(connection, tenant_id)


def _show(connection: Connection, tenant_id: str) -> None:
    connection.exec_driver_sql("SELECT set_config('app.tenant_id', %s, true)", (tenant_id,))
