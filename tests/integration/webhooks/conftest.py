"""An outbox on a real database: events written as the API writes them, sent by senders whose clock can be ahead."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import URL, text
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession, async_sessionmaker, create_async_engine

from core.catalog import registration
from core.db.engine import async_engine, bind_tenant
from core.embedded.postgres import API, WORKER
from core.jobs import events, submission
from core.jobs.events import Verb
from core.jobs.params import GenerationParams
from core.jobs.submission import QueueLimits
from core.tenants import provisioning
from core.webhooks import subscriptions
from core.webhooks.client import DEADLINE, Resolver, WebhookClient
from core.webhooks.models import WebhookEndpoint
from core.webhooks.releasing import ReleaseCounts, release
from core.webhooks.requested import RequestedWebhook
from core.webhooks.sender import SendCounts, Sender, SendLimits
from core.webhooks.target_policy import TargetPolicy
from tests.integration.webhooks.receiver import Receiver, receiving

LOOPBACK = TargetPolicy.parse(["127.0.0.0/8"])
QUEUE = QueueLimits(pool="gpu", max_attempts=3, tenant_max_running=16, webhook_targets=LOOPBACK)
LIMITS = SendLimits()
NO_GRACE = timedelta(0)
SOON = timedelta(seconds=20)


class Outbox:
    """Tenants, their endpoints and their events."""

    def __init__(self, url: URL) -> None:
        self.url = url
        self.owners = async_engine(url)
        self.api = async_engine(url.set(username=API))

    async def tenant(self, name: str = "acme") -> str:
        async with AsyncSession(self.owners) as session, session.begin():
            return await session.run_sync(lambda sync: provisioning.create_tenant(sync, name).id)

    @asynccontextmanager
    async def as_api(self, tenant_id: str) -> AsyncIterator[AsyncSession]:
        async with AsyncSession(self.api, expire_on_commit=False) as session, session.begin():
            bind_tenant(session, tenant_id)
            yield session

    async def endpoint(self, tenant_id: str, url: str, *event_types: str, in_order: bool = False) -> WebhookEndpoint:
        async with self.as_api(tenant_id) as session:
            endpoint, _ = await subscriptions.create_endpoint(
                session,
                tenant_id,
                url=url,
                name="hook",
                event_types=event_types,
                policy=LOOPBACK,
                in_order=in_order,
            )
        return endpoint

    async def happen(self, tenant_id: str, count: int = 1, *, webhook: RequestedWebhook | None = None) -> list[str]:
        """Let so many jobs be queued; the ids of the events that tell of it."""
        async with AsyncSession(self.owners) as session, session.begin():
            await session.run_sync(lambda sync: registration.register(sync, pool="gpu", locations=["models/none"]))
            model_id = await session.scalar(text("SELECT id FROM models"))
        params = GenerationParams(
            prompt="a cat", model_id=str(model_id), steps=1, guidance=1, n=1, seed=1, width=64, height=64
        )
        async with self.as_api(tenant_id) as session:
            limits = replace(QUEUE, webhook=webhook)
            jobs = [await submission.submit(session, tenant_id, params, limits=limits) for _ in range(count)]
        return [f"evt_{job.id[4:]}000001" for job in jobs]

    async def go_on(self, tenant_id: str, event_id: str, *verbs: Verb) -> list[str]:
        """Let more happen to the job of an event; the ids of the events that tell of it."""
        job_id = f"job_{event_id[4:-6]}"
        for verb in verbs:
            async with self.as_api(tenant_id) as session:
                await events.record_async(session, [events.Happening(job_id, verb)])
        return [f"{event_id[:-6]}{number:06}" for number in range(2, 2 + len(verbs))]

    @asynccontextmanager
    async def sender(
        self,
        *,
        ahead: timedelta = timedelta(0),
        policy: TargetPolicy = LOOPBACK,
        limits: SendLimits = LIMITS,
        resolve: Resolver | None = None,
        deadline: timedelta = DEADLINE,
    ) -> AsyncIterator[Sender]:
        """A sender whose database clock is ``ahead``; what it still has in flight at the end is cut off."""
        engine = self._workers(ahead)
        client = WebhookClient(policy, resolve=resolve, deadline=deadline)
        sender = Sender(async_sessionmaker(engine, expire_on_commit=False), client, jitter=lambda: 0.5, limits=limits)
        try:
            yield sender
        finally:
            await sender.finish(NO_GRACE)
            client.close()
            await engine.dispose()

    async def send(self, *, ahead: timedelta = timedelta(0), **options: Any) -> SendCounts:
        """One pass of a sender of its own, and the answers to all it started."""
        async with self.sender(ahead=ahead, **options) as sender:
            return await send(sender)

    async def release(self, *, ahead: timedelta = timedelta(0)) -> ReleaseCounts:
        """What maintenance does beside sending."""
        engine = self._workers(ahead)
        async with AsyncSession(engine) as session, session.begin():
            counts = await session.run_sync(release)
        await engine.dispose()
        return counts

    def _workers(self, ahead: timedelta) -> AsyncEngine:
        options = f"-c lockstep.clock_offset=PT{ahead.total_seconds():.3f}S"
        return create_async_engine(self.url.set(username=WORKER), connect_args={"options": options})

    async def rows(self, sql: str, **values: Any) -> list[Any]:
        async with self.owners.begin() as connection:
            result = await connection.execute(text(sql), values)
            return list(result.all()) if result.returns_rows else []

    async def delivery(self, event_id: str) -> Any:
        (row,) = await self.rows("SELECT * FROM webhook_deliveries WHERE event_id = :id", id=event_id)
        return row

    async def attempts(self, event_id: str) -> list[Any]:
        return await self.rows(
            "SELECT a.* FROM webhook_attempts a JOIN webhook_deliveries d ON d.id = a.delivery_id"
            " WHERE d.event_id = :id ORDER BY a.attempt",
            id=event_id,
        )

    async def states(self) -> list[str]:
        return [row.state for row in await self.rows("SELECT state FROM webhook_deliveries ORDER BY id")]


async def send(sender: Sender) -> SendCounts:
    """One pass, and the answers to all it started."""
    started = await sender.run_once()
    return replace(await sender.finish(SOON), started=started.started)


@pytest.fixture
async def outbox(new_database: Callable[[], URL]) -> AsyncIterator[Outbox]:
    """An empty outbox in a database of its own."""
    made = Outbox(new_database())
    yield made
    await made.owners.dispose()
    await made.api.dispose()


@pytest.fixture
async def receiver() -> AsyncIterator[Receiver]:
    """A receiver that accepts everything until told otherwise."""
    async with receiving() as opened:
        yield opened
