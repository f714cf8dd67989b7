from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from sqlalchemy import URL, text
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.ext.asyncio import create_async_engine

from core.embedded.postgres import WORKER
from workers.maintain import leader as module
from workers.maintain import statements
from workers.maintain.leader import Leader


@pytest.fixture(autouse=True)
def impatient(monkeypatch):
    monkeypatch.setattr(module, "_TRY_SECONDS", 0.01)
    monkeypatch.setattr(module, "_WORD_SECONDS", 0.01)


@asynccontextmanager
async def leading(url: URL) -> AsyncIterator[Leader]:
    leader = Leader(url.set(username=WORKER))
    async with asyncio.timeout(20):
        await leader.acquire()
        try:
            yield leader
        finally:
            await leader.resign()


async def end_sessions(url: URL) -> None:
    """What a failover or an operator does."""
    engine = create_async_engine(url.set(username=WORKER))
    async with engine.begin() as connection:
        await connection.execute(
            text("SELECT pg_terminate_backend(pid) FROM pg_locks WHERE locktype = 'advisory' AND granted")
        )
    await engine.dispose()


async def test_one_leads_and_the_next_waits_until_it_resigns(postgres_url):
    waiting = Leader(postgres_url.set(username=WORKER))
    async with leading(postgres_url):
        task = asyncio.create_task(waiting.acquire())
        done, _ = await asyncio.wait([task], timeout=0.2)
        assert not done
    async with asyncio.timeout(20):
        await task
    await waiting.resign()


async def test_a_leader_whose_session_ended_knows_it_and_another_leads(postgres_url):
    async with leading(postgres_url) as former:
        await end_sessions(postgres_url)
        async with leading(postgres_url):
            with pytest.raises(SQLAlchemyError):
                await former.hold()


async def test_a_leader_that_falls_silent_is_replaced(postgres_url, monkeypatch):
    monkeypatch.setattr(statements, "END_WHEN_SILENT", text("SET idle_session_timeout = '50ms'"))
    async with leading(postgres_url) as frozen, leading(postgres_url):
        with pytest.raises(SQLAlchemyError):
            await frozen.hold()
