"""Writing accepted jobs: the API's side of the queue, in the request's transaction."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from sqlalchemy.ext.asyncio import AsyncSession

from core.ids import new_id
from core.jobs import statements
from core.jobs.events import Happening, Verb, record_async
from core.jobs.fairshare import sort_key
from core.jobs.models import Job
from core.jobs.params import AnyParams, cost_ms, lane


@dataclass(frozen=True)
class QueueLimits:
    """What new jobs are admitted under."""

    pool: str
    max_attempts: int
    tenant_max_running: int


async def submit(
    session: AsyncSession,
    tenant_id: str,
    params: AnyParams,
    *,
    limits: QueueLimits,
    warnings: list[dict[str, Any]] | None = None,
    parent_id: str | None = None,
    blocked: bool = False,
) -> Job:
    """Write the job, its place in the queue and its first event. It exists once the caller commits.

    A ``blocked`` one gets its place when the jobs whose ``parent_id`` it is have all succeeded.
    """
    job_id = new_id("job")
    job = Job(
        id=job_id,
        tenant_id=tenant_id,
        kind=params.kind,
        pool=limits.pool,
        lane=lane(params, job_id),
        model_id=params.model_id,
        cost_ms=cost_ms(params),
        params=params.model_dump(mode="json"),
        warnings=warnings or [],
        max_attempts=limits.max_attempts,
        parent_id=parent_id,
        blocked=blocked,
    )
    session.add(job)
    await session.flush()
    await session.refresh(job)
    await session.execute(
        statements.JOIN_POOL,
        {"pool": job.pool, "tenant_id": tenant_id, "max_running": limits.tenant_max_running},
    )
    if not blocked:
        await _enqueue(session, job)
    await record_async(session, [Happening(job.id, Verb.QUEUED)])
    await session.refresh(job)
    return job


async def _enqueue(session: AsyncSession, job: Job) -> None:
    place = {
        "pool": job.pool,
        "tenant_id": job.tenant_id,
        "sort_key": sort_key(job.created_at, job.priority),
        "job_id": job.id,
        "lane": job.lane,
        "model_id": job.model_id,
        "cost_ms": job.cost_ms,
    }
    await session.execute(statements.ENQUEUE, place)
    await session.execute(statements.WAKE, {"ids": [job.id]})
