"""Delivering events: claim what is due, send it, write down what came of it.

One process sends at a time (two do no harm). No transaction is open during a request: the claim commits a lease,
and the result is written under its token. A sender that dies between the two leaves deliveries that come due again
when their lease ends, with the same ``webhook-id``: receivers get every event at least once.
"""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta

import structlog
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker

from core.jobs.models import Event
from core.webhooks import statements
from core.webhooks.client import DEADLINE, WebhookClient
from core.webhooks.envelope import event_body
from core.webhooks.models import WebhookDelivery, WebhookEndpoint
from core.webhooks.schedule import Answer, DeliveryState, Verdict, judge
from core.webhooks.signing import sign

LEASE = DEADLINE + timedelta(seconds=15)  # the request, and time to write its result

log = structlog.get_logger()


@dataclass(frozen=True)
class SendLimits:
    """Requests in flight at once. An endpoint or a tenant that hangs holds its own places and nobody else's."""

    in_all: int = 64
    per_tenant: int = 16
    per_endpoint: int = 4


@dataclass(frozen=True)
class SendCounts:
    """Deliveries started by a pass, and those that ended since the pass before."""

    started: int = 0
    delivered: int = 0
    retried: int = 0
    failed: int = 0


@dataclass(frozen=True)
class _Due:
    """A delivery in hand, under the token of its lease."""

    delivery: WebhookDelivery
    endpoint: WebhookEndpoint
    event: Event
    token: int
    claimed_at: datetime


class Sender:
    """The deliveries one process has in flight. ``jitter`` returns a number in [0, 1)."""

    def __init__(
        self,
        sessions: async_sessionmaker[AsyncSession],
        client: WebhookClient,
        *,
        jitter: Callable[[], float],
        limits: SendLimits = SendLimits(),
    ) -> None:
        self._sessions = sessions
        self._client = client
        self._jitter = jitter
        self._limits = limits
        self._in_flight: dict[asyncio.Task[None], _Due] = {}
        self._ended: Counter[str] = Counter()
        self._place_free = asyncio.Event()

    async def run_once(self) -> SendCounts:
        """Start what is due and has a place; does not wait for the answers."""
        self._place_free.clear()
        due = await self._claim()
        for item in due:
            task = asyncio.create_task(self._deliver(item))
            self._in_flight[task] = item
            task.add_done_callback(self._leave)
        return self._counts(started=len(due))

    async def rest(self, most: timedelta, least: timedelta = timedelta(milliseconds=20)) -> None:
        """Wait until a place has become free, so that a backlog flows, or until ``most`` has passed."""
        await asyncio.sleep(least.total_seconds())
        try:
            async with asyncio.timeout((most - least).total_seconds()):
                await self._place_free.wait()
        except TimeoutError:
            return

    async def finish(self, grace: timedelta) -> SendCounts:
        """Wait for the answers still expected; what is cut off after ``grace`` comes due again by its lease."""
        if self._in_flight:
            _, late = await asyncio.wait(self._in_flight, timeout=grace.total_seconds())
            for task in late:
                task.cancel()
            await asyncio.gather(*late, return_exceptions=True)
        return self._counts(started=0)

    async def _claim(self) -> list[_Due]:
        room = self._limits.in_all - len(self._in_flight)
        if room <= 0:
            return []
        places: Counter[str] = Counter()
        for item in self._in_flight.values():
            places.update((item.endpoint.id, item.endpoint.tenant_id))
        async with self._sessions.begin() as session:
            claimed = await session.execute(
                statements.CLAIM_DELIVERIES,
                {
                    "room": room,
                    "per_tenant": self._limits.per_tenant,
                    "per_endpoint": self._limits.per_endpoint,
                    "in_flight": places,
                    "lease": LEASE,
                },
            )
            leases = {row.id: row for row in claimed}
            if not leases:
                return []
            due = [
                _Due(delivery, endpoint, event, leases[delivery.id].token, leases[delivery.id].claimed_at)
                for delivery, endpoint, event in await session.execute(statements.claimed_deliveries(list(leases)))
            ]
            gone = {item.endpoint.id for item in due if item.endpoint.deleted_at is not None}
            for endpoint_id in gone:
                await session.execute(statements.ABANDON, {"endpoint_id": endpoint_id})
        return [item for item in due if item.endpoint.id not in gone]

    async def _deliver(self, item: _Due) -> None:
        body = json.dumps(event_body(item.event), separators=(",", ":"), ensure_ascii=False).encode()
        headers = sign(item.endpoint.secret, item.event.id, item.claimed_at, body)
        answer = await self._client.post(item.endpoint.url, body, headers)
        verdict = judge(answer, attempt=item.delivery.attempt + 1, jitter=self._jitter)
        try:
            await self._record(item, answer, verdict)
        except SQLAlchemyError as error:
            log.warning("delivery.not_recorded", delivery=item.delivery.id, error=str(error))

    async def _record(self, item: _Due, answer: Answer, verdict: Verdict) -> None:
        async with self._sessions.begin() as session:
            recorded = await session.execute(
                statements.RECORD_ATTEMPT,
                {
                    "delivery_id": item.delivery.id,
                    "token": item.token,
                    "state": verdict.state,
                    "delay": verdict.delay,
                    "status": answer.status,
                    "error": answer.error,
                    "duration_ms": answer.duration // timedelta(milliseconds=1),
                },
            )
            if recorded.one_or_none() is None:  # another sender has it, or its endpoint is gone
                return
            if answer.is_gone:
                where = {"endpoint_id": item.endpoint.id}
                await session.execute(statements.DELETE_ENDPOINT, where)
                await session.execute(statements.ABANDON, where)
        self._ended[verdict.state] += 1

    def _leave(self, task: asyncio.Task[None]) -> None:
        item = self._in_flight.pop(task)
        self._place_free.set()
        if not task.cancelled() and (error := task.exception()) is not None:
            log.error("delivery.broken", delivery=item.delivery.id, exc_info=error)

    def _counts(self, started: int) -> SendCounts:
        ended, self._ended = self._ended, Counter()
        return SendCounts(
            started=started,
            delivered=ended[DeliveryState.DELIVERED],
            retried=ended[DeliveryState.PENDING],
            failed=ended[DeliveryState.FAILED],
        )
