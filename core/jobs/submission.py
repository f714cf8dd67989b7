"""Accepting and cancelling jobs: the API's side of the queue, in the request's transaction."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from sqlalchemy.ext.asyncio import AsyncSession

from core.errors import NotCancelable, NotFound
from core.ids import new_id
from core.jobs import statements
from core.jobs.events import Happening, Verb, record_async
from core.jobs.fairshare import sort_key
from core.jobs.models import Job
from core.jobs.params import GenerationParams, TrainingParams, cost_ms, lane
from core.jobs.states import JobState


@dataclass(frozen=True)
class QueueLimits:
    """What new jobs are admitted under."""

    pool: str
    max_attempts: int
    tenant_max_running: int


async def submit(
    session: AsyncSession,
    tenant_id: str,
    params: TrainingParams | GenerationParams,
    *,
    limits: QueueLimits,
    warnings: list[dict[str, Any]] | None = None,
) -> Job:
    """Write the job, its place in the queue and its first event. It exists once the caller commits."""
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
    )
    session.add(job)
    await session.flush()
    await session.refresh(job)
    await session.execute(
        statements.JOIN_POOL,
        {"pool": job.pool, "tenant_id": tenant_id, "max_running": limits.tenant_max_running},
    )
    await session.execute(
        statements.ENQUEUE,
        {
            "pool": job.pool,
            "tenant_id": tenant_id,
            "sort_key": sort_key(job.created_at, job.priority),
            "job_id": job.id,
            "lane": job.lane,
            "model_id": job.model_id,
            "cost_ms": job.cost_ms,
        },
    )
    await session.execute(statements.WAKE, {"ids": [job.id]})
    await record_async(session, Happening(job.id, Verb.QUEUED))
    await session.refresh(job)
    return job


async def cancel(session: AsyncSession, job_id: str) -> Job:
    """End a queued job at once; ask the worker of a running one to stop. A canceled job stays canceled.

    Raises NotFound, or NotCancelable when the job ended otherwise.
    """
    # Locked before it is looked at, so that it can move neither to a worker nor back to the queue meanwhile.
    locked = statements.job_by_id(job_id).with_for_update().execution_options(populate_existing=True)
    job = await session.scalar(locked)
    if job is None:
        raise NotFound(f"No job {job_id}.", param="id")
    match JobState(job.state):
        case JobState.QUEUED:
            await session.execute(statements.CANCEL_QUEUED, {"job_id": job_id})
            await session.execute(statements.UNQUEUE, {"ids": [job_id]})
            await record_async(session, Happening(job_id, Verb.CANCELED))
        case JobState.RUNNING:
            await session.execute(statements.REQUEST_CANCEL, {"job_id": job_id})
        case JobState.SUCCEEDED | JobState.FAILED | JobState.EXPIRED:
            raise NotCancelable(f"Job {job_id} has already {job.state}.")
    await session.refresh(job)
    return job
