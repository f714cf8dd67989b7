"""Cancelling, pausing and resuming a job, with the jobs that were made for it: in the request's transaction.

All three can be asked for twice. Raises NotFound, and for a job that has ended NotCancelable or NotPausable.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from sqlalchemy import Row
from sqlalchemy.ext.asyncio import AsyncSession

from core.control import statements
from core.control.canceling import cancel_locked
from core.errors import NotCancelable, NotFound, NotPausable
from core.jobs import statements as queue
from core.jobs.events import Happening, Verb, record_async
from core.jobs.models import Job
from core.jobs.states import PAUSABLE, JobKind, JobState
from core.scheduling import statements as scheduling


async def cancel(session: AsyncSession, job_id: str) -> Job:
    """End what is queued at once; ask the workers of what runs to stop. A canceled job stays canceled."""
    family = await _lock_family(session, job_id)
    job = await _read(session, job_id)
    if JobState(job.state) in {JobState.SUCCEEDED, JobState.FAILED, JobState.EXPIRED}:
        raise NotCancelable(f"Job {job_id} has already {job.state}.")
    await record_async(session, await session.run_sync(cancel_locked, family))
    await session.refresh(job)
    return job


async def pause(session: AsyncSession, job_id: str) -> Job:
    """Take what is queued out of the queue; ask the workers of what runs to give it back with a checkpoint."""
    family = [row for row in await _lock_family(session, job_id) if not row.paused]
    job = await _pausable(session, job_id)
    queued = [row.id for row in family if row.state == JobState.QUEUED]
    await session.execute(statements.PAUSE, {"ids": [row.id for row in family]})
    await session.execute(scheduling.UNQUEUE, {"ids": queued})
    await _record(session, queued, Verb.PAUSED)
    await session.refresh(job)
    return job


async def resume(session: AsyncSession, job_id: str) -> Job:
    """Let it go on: what was given back returns to the queue, what has not stopped yet does when it has."""
    family = [row.id for row in await _lock_family(session, job_id) if row.paused]
    job = await _pausable(session, job_id)
    await session.execute(statements.RESUME, {"ids": family})
    await _record(session, family, Verb.RESUMED)
    await session.refresh(job)
    return job


async def _lock_family(session: AsyncSession, job_id: str) -> Sequence[Row[tuple[str, str, bool]]]:
    """The job and its children that have not ended: they can move neither to a worker nor back meanwhile."""
    return (await session.execute(statements.LOCK_FAMILY, {"job_id": job_id})).all()


async def _read(session: AsyncSession, job_id: str) -> Job:
    fresh = queue.job_by_id(job_id).execution_options(populate_existing=True)
    job = await session.scalar(fresh)
    if job is None:
        raise NotFound(f"No job {job_id}.", param="id")
    return job


async def _pausable(session: AsyncSession, job_id: str) -> Job:
    job = await _read(session, job_id)
    if JobKind(job.kind) not in PAUSABLE:
        raise NotPausable(f"A {job.kind} is over in seconds and cannot be paused.")
    if JobState(job.state).is_terminal:
        raise NotPausable(f"Job {job_id} has already {job.state}.")
    return job


async def _record(session: AsyncSession, ids: Iterable[str], verb: Verb) -> None:
    await record_async(session, [Happening(job_id, verb) for job_id in ids])
