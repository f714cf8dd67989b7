"""Writing accepted jobs: the API's side of the queue, in the request's transaction."""

from __future__ import annotations

import zlib
from dataclasses import dataclass, field, replace
from datetime import timedelta
from functools import partial
from typing import Any

from sqlalchemy.ext.asyncio import AsyncSession
from structlog.contextvars import bind_contextvars

from core import tracing
from core.budgets.terms import Terms
from core.concepts import grants
from core.ids import new_id
from core.jobs.events import Happening, Verb, record_async
from core.jobs.models import Job
from core.jobs.params import AnyParams, GenerationParams, cost_ms, lane
from core.scheduling import statements as scheduling
from core.scheduling.estimates import ENOUGH_SAMPLES, cost_keys, estimated_cost
from core.scheduling.fairshare import Priority, sort_key
from core.webhooks.requested import RequestedWebhook, attach
from core.webhooks.target_policy import TargetPolicy


@dataclass(frozen=True)
class QueueLimits:
    """What new jobs are admitted under, and by which key at what priority."""

    pool: str
    max_attempts: int
    tenant_max_running: int
    api_key_id: str | None = None
    priority: Priority = Priority.NORMAL
    cancel_after: timedelta | None = None  # the job's deadline, from its acceptance on
    webhook: RequestedWebhook | None = None  # of the job itself, not of those that are made for it
    webhook_targets: TargetPolicy = field(default_factory=TargetPolicy)
    terms: Terms = field(default_factory=partial(Terms, None))

    def of(
        self, api_key_id: str | None, priority: Priority = Priority.NORMAL, cancel_after: timedelta | None = None
    ) -> QueueLimits:
        """The same, for one key's request."""
        return replace(self, api_key_id=api_key_id, priority=priority, cancel_after=cancel_after)


async def submit(
    session: AsyncSession,
    tenant_id: str,
    params: AnyParams,
    *,
    limits: QueueLimits,
    warnings: list[dict[str, Any]] | None = None,
    parent_id: str | None = None,
    blocked: bool = False,
    retry_of: str | None = None,
) -> Job:
    """Write the job, its place in the queue and its first event. It exists once the caller commits.

    A ``blocked`` one gets its place when the jobs whose ``parent_id`` it is have all succeeded; one of a key with a
    cap, when the key has a place for it. Raises what its terms and its webhook raise.
    """
    job_id = new_id("job")
    shared = lane(params, job_id)
    joining = {
        "pool": limits.pool,
        "tenant_id": tenant_id,
        "max_running": limits.tenant_max_running,
        "api_key_id": limits.api_key_id,
        "cost_keys": cost_keys(shared, params.kind, params.model_id),
        "enough": ENOUGH_SAMPLES,
    }
    entry = (await session.execute(scheduling.JOIN_POOL, joining)).one()
    estimate_ms = estimated_cost(cost_ms(params), entry.log_mean)
    reserved_ms, quote_id = await limits.terms.price(session, estimate_ms)
    webhook = None
    if limits.webhook is not None and parent_id is None:
        webhook = await attach(session, tenant_id, limits.webhook, limits.webhook_targets)
    job = Job(
        id=job_id,
        tenant_id=tenant_id,
        api_key_id=limits.api_key_id,
        key_place=None if entry.key_cap is None else "waiting",
        kind=params.kind,
        pool=limits.pool,
        lane=shared,
        model_id=params.model_id,
        priority=limits.priority,
        sort_key=sort_key(entry.now, limits.priority),
        cost_ms=estimate_ms,
        reserved_ms=reserved_ms,
        quote_id=quote_id,
        params=params.model_dump(mode="json"),
        warnings=warnings or [],
        max_attempts=limits.max_attempts,
        parent_id=parent_id,
        retry_of=retry_of,
        webhook=webhook,
        traceparent=tracing.current(),
        blocked=blocked,
        deadline_at=None if limits.cancel_after is None else entry.now + limits.cancel_after,
        created_at=entry.now,
    )
    bind_contextvars(job_id=job_id)  # the request's lines tell it
    session.add(job)
    await session.flush()
    if isinstance(params, GenerationParams):
        await grants.use(session, job.id, {use.concept_id for use in params.concepts if use.owner_id is not None})
    if not blocked and entry.key_cap is None:
        await session.execute(scheduling.ENQUEUE, {"ids": [job.id]})
        await session.execute(scheduling.WAKE, {"ids": [job.id]})
        if _is_sample(job_id):
            await session.execute(scheduling.KEEP_START_ESTIMATE, {"job_id": job.id})
    await record_async(session, [Happening(job.id, Verb.QUEUED)])
    await limits.terms.admit(session, job)
    await session.flush()
    await session.refresh(job)
    return job


def _is_sample(job_id: str) -> bool:
    """Whether the job's start is estimated, to learn how good estimates are: one in eight."""
    return zlib.crc32(job_id.encode()) % 8 == 0
