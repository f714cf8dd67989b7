"""The ringer's pause ends when a tenant wakes up, and otherwise when it is over."""

from __future__ import annotations

import asyncio
import socket
import time
from datetime import timedelta

import pytest
from sqlalchemy import URL, text

from core.embedded.postgres import WORKER
from core.jobs import workers
from tests.integration.jobs.conftest import Queue
from workers.maintain import wakeup as module
from workers.maintain.wakeup import WakeListener

LONG, SHORT = timedelta(seconds=30), timedelta(seconds=0.05)


@pytest.fixture
def url(queue: Queue) -> URL:
    return queue.owners.url.set(username=WORKER)


async def seconds_of(listener: WakeListener, most: timedelta) -> float:
    started = time.monotonic()
    await listener.rest(most)
    return time.monotonic() - started


def rested(queue: Queue, url: URL, *, before: timedelta = SHORT) -> float:
    """How long a pause of ``LONG`` lasts in which a tenant who slept gets a job."""

    tenant = queue.tenant()

    async def rest() -> float:
        listener = WakeListener(url)
        try:
            await listener.rest(before)  # it listens from here on
            pause = asyncio.create_task(seconds_of(listener, LONG))
            await asyncio.sleep(0.2)
            assert not pause.done()
            await asyncio.to_thread(queue.submit, tenant)
            return await pause
        finally:
            await listener.close()

    return asyncio.run(rest())


def test_a_tenant_who_wakes_up_ends_the_pause(queue, url):
    assert rested(queue, url) < 10
    with queue.sessions() as session:
        assert workers.idle_with_work(session) == []  # nobody is there to be rung; the news came all the same


def test_a_tenant_who_is_awake_makes_no_noise(queue, url):
    tenant = queue.tenant()
    queue.submit(tenant)

    async def rest() -> float:
        listener = WakeListener(url)
        try:
            await listener.rest(SHORT)
            await asyncio.to_thread(queue.submit, tenant)
            return await seconds_of(listener, timedelta(seconds=0.5))
        finally:
            await listener.close()

    # The first job's note is not folded in yet, so the tenant still counts as asleep, and says so once more.
    assert asyncio.run(rest()) < 0.5
    queue.claim(room=2)
    assert asyncio.run(rest()) >= 0.5


def test_without_news_the_pause_takes_its_time(queue, url):
    async def rest() -> float:
        listener = WakeListener(url)
        try:
            await listener.rest(SHORT)
            return await seconds_of(listener, timedelta(seconds=0.3))
        finally:
            await listener.close()

    assert asyncio.run(rest()) >= 0.29


def test_a_lost_session_is_opened_again(queue, url, monkeypatch):
    monkeypatch.setattr(module, "_DEAF_SECONDS", 0.1)
    tenant = queue.tenant()

    async def rest() -> None:
        listener = WakeListener(url)
        try:
            await listener.rest(SHORT)
            with queue.owners.begin() as connection:
                connection.execute(
                    text("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE query LIKE 'LISTEN%'")
                )
            await listener.rest(SHORT)  # deaf
            await asyncio.sleep(0.1)
            pause = asyncio.create_task(seconds_of(listener, LONG))
            await asyncio.sleep(0.3)
            await asyncio.to_thread(queue.submit, tenant)
            assert await pause < 10
        finally:
            await listener.close()

    asyncio.run(rest())


async def test_a_server_that_says_nothing_is_given_up(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(module, "_PATIENCE_SECONDS", 0.3)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        listener = WakeListener(URL.create("postgresql+psycopg", "x", "x", "127.0.0.1", silent.getsockname()[1], "x"))
        assert await seconds_of(listener, SHORT) < 4  # it would wait for 5 s to be connected, and for ever after that
        assert await seconds_of(listener, SHORT) < 0.3
        await listener.close()
