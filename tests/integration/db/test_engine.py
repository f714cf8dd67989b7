from __future__ import annotations

import asyncio

import psycopg
import pytest
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError

from core.config import Settings
from core.db.engine import async_engine, sync_engine
from core.embedded.postgres import SUPERUSER, WORKER

TIMEOUTS = ("idle_in_transaction_session_timeout", "lock_timeout", "statement_timeout")
READ = text("SELECT " + ", ".join(f"current_setting('{name}')" for name in ("role", *TIMEOUTS)))


def read(url):
    engine = sync_engine(url)
    with engine.connect() as connection:
        row = connection.execute(READ).one()
    engine.dispose()
    return tuple(row)


def test_the_server_ends_what_hangs(postgres_url):
    assert read(postgres_url) == ("none", "10s", "10s", "1min")


def test_the_api_has_the_same_limits_as_the_workers(postgres_url):
    async def read_async():
        engine = async_engine(postgres_url)
        async with engine.connect() as connection:
            row = (await connection.execute(READ)).one()
        await engine.dispose()
        return tuple(row)

    assert asyncio.run(read_async()) == read(postgres_url)


def test_what_a_statement_was_given_is_told_by_no_error(postgres_url):
    """Errors are logged, and secrets, hashes and prompts are among the values."""
    broken = text("SELECT 1 / (length(:value) - 9)")
    engine = sync_engine(postgres_url)
    with engine.connect() as connection, pytest.raises(DBAPIError) as told:
        connection.execute(broken, {"value": "whsec_abc"})
    engine.dispose()
    assert "whsec_abc" not in str(told.value)

    async def fail() -> None:
        engine = async_engine(postgres_url)
        try:
            async with engine.connect() as connection:
                await connection.execute(broken, {"value": "whsec_abc"})
        finally:
            await engine.dispose()

    with pytest.raises(DBAPIError) as told:
        asyncio.run(fail())
    assert "whsec_abc" not in str(told.value)


def test_a_role_taken_by_a_url_goes_with_the_limits(postgres_url):
    login = postgres_url.set(username=SUPERUSER).render_as_string()
    assert read(Settings(database_url=login).worker_dsn) == (WORKER, "10s", "10s", "1min")


def test_a_limit_in_a_url_holds(postgres_url):
    url = postgres_url.update_query_dict({"options": "-c statement_timeout=5s"})
    assert read(url) == ("none", "10s", "10s", "5s")


def test_a_connection_notices_that_the_other_side_is_gone(postgres_url):
    engine = sync_engine(postgres_url)
    with engine.connect() as connection:
        driver = connection.connection.dbapi_connection
        assert isinstance(driver, psycopg.Connection)
        parameters = driver.info.get_parameters()
    engine.dispose()
    wanted = {
        "connect_timeout": "5", "keepalives_idle": "10", "keepalives_interval": "5", "keepalives_count": "3",
        "tcp_user_timeout": "20000",
    }  # fmt: skip
    assert wanted.items() <= parameters.items()


PID = text("SELECT pg_backend_pid()")


@pytest.fixture
def end_session(postgres_url):
    """Ends the session of a process of Postgres."""
    with psycopg.connect(postgres_url.set(drivername="postgresql").render_as_string(), autocommit=True) as operator:

        def end(pid):
            operator.execute("SELECT pg_terminate_backend(%s, 5000)", [pid])

        yield end


def test_a_connection_that_was_ended_while_nobody_used_it_is_replaced_unnoticed(postgres_url, end_session):
    engine = sync_engine(postgres_url)
    with engine.connect() as connection, engine.connect() as other:
        first, _ = connection.execute(PID).scalar_one(), other.execute(PID)
    end_session(first)
    with engine.connect() as connection, engine.connect() as other:
        assert first not in {connection.execute(PID).scalar_one(), other.execute(PID).scalar_one()}
    engine.dispose()


async def test_so_is_one_of_the_api(postgres_url, end_session):
    engine = async_engine(postgres_url)
    async with engine.connect() as connection:
        first = (await connection.execute(PID)).scalar_one()
    await asyncio.to_thread(end_session, first)
    async with engine.connect() as connection:
        assert (await connection.execute(PID)).scalar_one() != first
    await engine.dispose()


def test_only_a_connection_that_rested_is_asked_whether_it_lives(postgres_url, monkeypatch):
    engine = sync_engine(postgres_url)
    asked = []

    def ping(connection):
        asked.append(connection)
        return True

    monkeypatch.setattr(engine.dialect, "do_ping", ping)
    for _ in range(3):
        with engine.connect() as connection:
            connection.execute(PID)
    assert not asked
    monkeypatch.setattr("core.db.engine._RESTED", 0.0)
    with engine.connect():
        assert len(asked) == 1
    engine.dispose()


def test_a_connection_that_its_driver_closed_is_replaced(postgres_url):
    engine = sync_engine(postgres_url)
    with engine.connect() as connection:
        connection.execute(PID)
        driver = connection.connection.driver_connection
        assert isinstance(driver, psycopg.Connection)
    driver.close()
    with engine.connect() as connection:
        assert connection.execute(PID).scalar_one()
    engine.dispose()


def test_a_lock_is_not_waited_for_without_end(postgres_url):
    impatient = sync_engine(postgres_url.update_query_dict({"options": "-c lock_timeout=50ms"}))
    lock = text("SELECT pg_advisory_xact_lock(1)")
    with impatient.connect() as holder, impatient.connect() as waiter:
        holder.execute(lock)
        with pytest.raises(DBAPIError, match="lock timeout"):
            waiter.execute(lock)
    impatient.dispose()
