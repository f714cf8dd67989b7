"""The maintainer as it is run: a process, and another that takes over."""

from __future__ import annotations

import asyncio
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from core.config import Settings, child_environment
from core.webhooks import subscriptions
from tests.integration.webhooks.conftest import Outbox
from tests.integration.webhooks.receiver import receiving
from tests.waiting import until
from workers.celery_app import queue_name

MODELS = ("models/none",)
IDLE_WORKER = "INSERT INTO workers (id, pool, host, pid, state) VALUES ('wrk_1', 'gpu', 'here', 1, 'idle')"


@contextmanager
def maintaining(settings: Settings, log: Path) -> Iterator[subprocess.Popen[bytes]]:
    """A maintainer that writes to ``log``; killed at the end unless it has stopped."""
    with log.open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "workers.maintain"], env=child_environment(settings), stdout=output, stderr=output
        )
        try:
            yield process
        finally:
            process.kill()
            process.wait()


@pytest.fixture
async def outbox(stack_settings: Settings) -> AsyncIterator[Outbox]:
    made = Outbox(stack_settings.owner_dsn)
    yield made
    await made.owners.dispose()
    await made.api.dispose()


async def test_a_maintainer_rings_delivers_is_replaced_when_killed_and_stops_when_told(
    stack_settings, outbox, doorbells, tmp_path
):
    settings = stack_settings.model_copy(update={"models": MODELS})
    log = tmp_path / "first.log"
    with maintaining(settings, log) as first:
        await asyncio.to_thread(until, lambda: b"leadership.won" in log.read_bytes())
        assert [row.name for row in await outbox.rows("SELECT name FROM models")] == ["none"]
        with maintaining(settings, tmp_path / "second.log") as second:
            async with receiving() as receiver:
                tenant = await outbox.tenant()
                endpoint = await outbox.endpoint(tenant, receiver.url())
                await outbox.rows(
                    "INSERT INTO workers (id, pool, host, pid, state) VALUES ('wrk_1', 'gpu', 'h', 1, 'idle')"
                )
                await outbox.happen(tenant)
                (request,) = await receiver.has(1)
                request.verified(endpoint.secret)
                await asyncio.to_thread(until, lambda: doorbells.server.llen(queue_name("gpu")) > 0)
                first.kill()
                (event_id,) = await outbox.happen(tenant)
                assert (await receiver.has(2))[1].id == event_id
            second.send_signal(signal.SIGTERM)
            assert await asyncio.to_thread(second.wait, 10) == 0


async def test_a_maintainer_sends_what_was_held_for_an_endpoint_that_is_enabled(stack_settings, outbox, tmp_path):
    settings = stack_settings.model_copy(update={"models": MODELS})
    async with receiving() as receiver:
        tenant = await outbox.tenant()
        endpoint = await outbox.endpoint(tenant, receiver.url(), "generation.queued")
        async with outbox.as_api(tenant) as session:
            await subscriptions.disable_endpoint(session, endpoint.id)
        held = await outbox.happen(tenant)
        log = tmp_path / "maintain.log"
        with maintaining(settings, log):
            await asyncio.to_thread(until, lambda: b"leadership.won" in log.read_bytes())
            async with outbox.as_api(tenant) as session:
                await subscriptions.enable_endpoint(session, endpoint.id)
            assert [request.id for request in await receiver.has(1)] == held
