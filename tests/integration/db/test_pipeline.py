"""Statements that go to Postgres together do what they would do one by one."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
from psycopg.types.json import Jsonb
from sqlalchemy import URL, Engine, text
from sqlalchemy.exc import IntegrityError, OperationalError
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import Session

from core.db.engine import async_engine, sync_engine
from core.db.pipeline import Call, Rows, exchange
from tests.waiting import until

PUT = text("INSERT INTO kept VALUES (:key, :value)")
READ = text("SELECT key, value FROM kept WHERE key = ANY (CAST(:keys AS text[])) ORDER BY key")
LOCK = text("SELECT pg_advisory_xact_lock(7)")


def put(key: str, **value: int) -> Call:
    return PUT, {"key": key, "value": Jsonb(value)}


@pytest.fixture
def engine(postgres_url: URL) -> Iterator[Engine]:
    made = sync_engine(postgres_url)
    with made.begin() as connection:
        connection.exec_driver_sql("DROP TABLE IF EXISTS kept")
        connection.exec_driver_sql("CREATE TABLE kept (key text PRIMARY KEY, value jsonb)")
    yield made
    made.dispose()


def keys(engine: Engine) -> list[str]:
    with engine.begin() as connection:
        return list(connection.exec_driver_sql("SELECT key FROM kept ORDER BY key").scalars())


def test_each_statement_sees_what_those_before_it_wrote(engine):
    with Session(engine) as session, session.begin():
        session.execute(text("INSERT INTO kept VALUES ('a', '{}')"))
        none, rows, more = exchange(session, put("b", size=2), (READ, {"keys": ["a", "b"]}), (READ, {"keys": []}))
    assert (none, more) == ([], [])
    assert rows == [{"key": "a", "value": {}}, {"key": "b", "value": {"size": 2}}]
    assert keys(engine) == ["a", "b"]


def test_a_statement_behind_a_lock_sees_what_was_committed_while_it_waited(engine):
    with Session(engine) as holder, holder.begin(), ThreadPoolExecutor(1) as pool:
        holder.execute(LOCK)

        def ask() -> list[Rows]:
            with Session(engine) as session, session.begin():
                return exchange(session, (LOCK, {}), (READ, {"keys": ["late"]}))

        asked = pool.submit(ask)
        waiting = text("SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND NOT granted")
        until(lambda: holder.scalar(waiting) == 1)
        holder.execute(text("INSERT INTO kept VALUES ('late', '1')"))
        holder.commit()
        assert asked.result()[1] == [{"key": "late", "value": 1}]


async def test_an_asynchronous_session_has_the_same_answers(engine, postgres_url):
    asynchronous = async_engine(postgres_url)
    async with AsyncSession(asynchronous) as session, session.begin():
        told = await session.run_sync(exchange, put("b", size=2), (READ, {"keys": ["b"]}))
    await asynchronous.dispose()
    assert told == [[], [{"key": "b", "value": {"size": 2}}]]
    assert keys(engine) == ["b"]


def test_what_goes_back_is_undone_whole(engine):
    with Session(engine) as session:
        exchange(session, put("a"), put("b"))
        session.rollback()
        exchange(session, put("c"))
        session.commit()
    assert keys(engine) == ["c"]


def test_the_first_that_fails_ends_it_as_it_would_alone(engine):
    with Session(engine) as session:
        with pytest.raises(IntegrityError, match="kept_pkey") as told:
            exchange(session, put("a"), put("a"), put("b"))
        assert not told.value.connection_invalidated
        session.rollback()
        exchange(session, put("c"))
        session.commit()
    assert keys(engine) == ["c"]


def test_a_connection_that_broke_is_told_and_not_used_again(engine):
    with Session(engine) as session:
        pid = session.scalar(text("SELECT pg_backend_pid()"))
        with engine.begin() as other:
            other.execute(text("SELECT pg_terminate_backend(:pid, 5000)"), {"pid": pid})
        with pytest.raises(OperationalError) as told:
            exchange(session, put("a"))
        assert told.value.connection_invalidated
        session.rollback()
        exchange(session, put("b"))
        session.commit()
    assert keys(engine) == ["b"]
