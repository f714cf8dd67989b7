"""Delivering events: claim what is due, send it, write down what came of it.

One process sends at a time (two do no harm). No transaction is open during a request: the claim commits a lease,
and the result is written under its token. A sender that dies between the two leaves deliveries that come due again
when their lease ends, with the same ``webhook-id``: receivers get every event at least once.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass
from datetime import datetime, timedelta

import structlog
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker
from structlog.contextvars import bound_contextvars

from core.jobs.models import Event
from core.tracing import OFF, Attributes, SpanKind, Spot, Tracing, trace_id
from core.webhooks import disabling, statements
from core.webhooks.client import DEADLINE, WebhookClient
from core.webhooks.envelope import event_body
from core.webhooks.models import WebhookDelivery, WebhookEndpoint
from core.webhooks.notices import DisabledReason
from core.webhooks.schedule import FAILING_FOR, Answer, DeliveryState, Verdict, judge
from core.webhooks.signing import sign

LEASE = DEADLINE + timedelta(seconds=15)  # the request, and time to write its result
_FLOW = timedelta(seconds=1)  # for so long after the last start more is expected,
_EAGER = timedelta(milliseconds=50)  # and looked for as often as this

log = structlog.get_logger()


@dataclass(frozen=True)
class SendLimits:
    """Requests in flight at once. An endpoint or a tenant that hangs holds its own places and nobody else's.

    Endpoints that fail are tried, but hold one place in ``failing_share`` at most, of each of these.
    """

    in_all: int = 128
    per_tenant: int = 16
    per_endpoint: int = 4
    failing_share: int = 4


@dataclass(frozen=True)
class SendCounts:
    """Deliveries started by a pass, and those that ended since the pass before."""

    started: int = 0
    delivered: int = 0
    retried: int = 0
    held: int = 0
    failed: int = 0


@dataclass(frozen=True)
class _Due:
    """A delivery in hand, under the token of its lease."""

    delivery: WebhookDelivery
    endpoint: WebhookEndpoint
    event: Event
    url: str
    secrets: tuple[str, ...]
    token: int
    claimed_at: datetime
    traceparent: str | None  # of the job

    @property
    def is_wanted(self) -> bool:
        """Whether its endpoint is still there and enabled."""
        return self.endpoint.deleted_at is None and self.endpoint.disabled_at is None

    @property
    def places(self) -> Iterator[str]:
        """What its request counts for, as ``CLAIM_DELIVERIES`` names it."""
        yield from (self.endpoint.id, self.endpoint.tenant_id)
        if self.endpoint.failing_since is not None:
            yield from ("failing", f"failing:{self.endpoint.tenant_id}")


class Sender:
    """The deliveries one process has in flight. ``jitter`` returns a number in [0, 1)."""

    def __init__(
        self,
        sessions: async_sessionmaker[AsyncSession],
        client: WebhookClient,
        *,
        jitter: Callable[[], float],
        limits: SendLimits = SendLimits(),
        tracing: Tracing = OFF,
    ) -> None:
        self._sessions = sessions
        self._client = client
        self._jitter = jitter
        self._limits = limits
        self._tracing = tracing
        self._in_flight: dict[asyncio.Task[None], _Due] = {}
        self._ended: Counter[str] = Counter()
        self._place_free = asyncio.Event()
        self._started_at = -_FLOW.total_seconds()

    async def run_once(self) -> SendCounts:
        """Start what is due and has a place; does not wait for the answers."""
        self._place_free.clear()
        due = await self._claim()
        if due:
            self._started_at = time.monotonic()
        for item in due:
            task = asyncio.create_task(self._deliver(item))
            self._in_flight[task] = item
            task.add_done_callback(self._leave)
        return self._counts(started=len(due))

    async def rest(self, most: timedelta, least: timedelta = timedelta(milliseconds=20)) -> None:
        """Wait until a place has become free, so that a backlog flows, or until ``most`` has passed.

        While events keep coming it is not waited for long: those of a whole pause would all be late.
        """
        if time.monotonic() - self._started_at < _FLOW.total_seconds():
            most = min(most, _EAGER)
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
        places = Counter(place for item in self._in_flight.values() for place in item.places)
        async with self._sessions.begin() as session:
            claimed = await session.execute(
                statements.CLAIM_DELIVERIES,
                {**asdict(self._limits), "room": room, "in_flight": places, "lease": LEASE},
            )
            leases = {row.id: row for row in claimed}
            if not leases:
                return []
            found = await session.execute(statements.claimed_deliveries(list(leases)))
            due = [
                _Due(
                    delivery,
                    endpoint,
                    event,
                    url,
                    secrets=tuple(filter(None, (secret, previous))),
                    token=leases[delivery.id].token,
                    claimed_at=leases[delivery.id].claimed_at,
                    traceparent=traceparent,
                )
                for delivery, endpoint, event, url, secret, previous, traceparent in found
            ]
            return await _wanted(session, due)

    async def _deliver(self, item: _Due) -> None:
        with bound_contextvars(
            delivery_id=item.delivery.id,
            tenant_id=item.endpoint.tenant_id,
            job_id=item.event.job_id,
            trace_id=trace_id(item.traceparent),
        ):
            answer = await self._send(item)
            attempt = item.delivery.attempt - item.delivery.attempts_before + 1
            verdict = judge(answer, attempt=attempt, jitter=self._jitter, is_shared=item.endpoint.on_request)
            if answer.error is not None:
                log.info("delivery.refused", event_type=item.event.type, attempt=attempt, error=answer.error)
            try:
                await self._record(item, answer, verdict)
            except SQLAlchemyError as error:
                log.warning("delivery.not_recorded", error=str(error))

    async def _send(self, item: _Due) -> Answer:
        body = json.dumps(event_body(item.event), separators=(",", ":"), ensure_ascii=False).encode()
        headers = dict(sign(item.secrets, item.event.id, item.claimed_at, body))
        with self._traced(item) as spot:
            if spot.traceparent is not None:
                headers["traceparent"] = spot.traceparent
            answer = await self._client.post(item.url, body, headers)
            if answer.status is not None:
                spot.tell(**{"http.response.status_code": answer.status})
            if answer.error is not None:
                spot.fail(answer.error)
        return answer

    def _traced(self, item: _Due) -> AbstractContextManager[Spot]:
        """The attempt's place in the trace of its job; what belongs to no trace begins none."""
        told: Attributes = {
            "lockstep.event": item.event.type,
            "lockstep.event_id": item.event.id,
            "lockstep.endpoint_id": item.endpoint.id,
            "lockstep.tenant_id": item.endpoint.tenant_id,
            "lockstep.attempt": item.delivery.attempt + 1,
        }
        tracing = OFF if item.traceparent is None else self._tracing
        return tracing.span("webhook delivery", parent=item.traceparent, kind=SpanKind.CLIENT, attributes=told)

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
            await _note(session, item, answer, verdict)
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
            held=ended[DeliveryState.HELD],
            failed=ended[DeliveryState.FAILED],
        )


async def _wanted(session: AsyncSession, due: Sequence[_Due]) -> list[_Due]:
    """Those that are to be sent; what is owed to endpoints that are deleted or disabled is ended or held instead."""
    unwanted = {item.endpoint.id: item.endpoint for item in due if not item.is_wanted}
    for endpoint in unwanted.values():
        if endpoint.deleted_at is not None:
            await session.execute(statements.ABANDON, {"endpoint_id": endpoint.id})
        else:
            ids = [item.delivery.id for item in due if item.endpoint.id == endpoint.id]
            await session.execute(statements.HOLD, {"endpoint_id": endpoint.id, "ids": ids})
    return [item for item in due if item.is_wanted]


async def _note(session: AsyncSession, item: _Due, answer: Answer, verdict: Verdict) -> None:
    """What an answer means for its endpoint, and for the delivery that waited for this one."""
    endpoint_id = item.endpoint.id
    if answer.error is None:
        await session.execute(statements.NOTE_ACCEPTANCE, {"endpoint_id": endpoint_id})
    else:
        await session.execute(statements.NOTE_FAILURE, {"endpoint_id": endpoint_id, "quiet": answer.quiet})
        if answer.is_gone and not item.endpoint.on_request:
            await disabling.disable(session, endpoint_id, DisabledReason.GONE)
        else:
            await disabling.disable(session, endpoint_id, DisabledReason.FAILING, failing_for=FAILING_FOR)
    if item.endpoint.in_order and verdict.state is not DeliveryState.PENDING:
        await session.execute(statements.CALL_NEXT, {"endpoint_id": endpoint_id, "event_id": item.event.id})
