"""Looking jobs up, and waiting for their end without holding a transaction."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from datetime import timedelta

from sqlalchemy.ext.asyncio import AsyncSession

from core.db.transactions import Transactions
from core.errors import NotFound
from core.jobs import statements
from core.jobs.models import Job, JobAttempt
from core.jobs.pauses import growing
from core.jobs.states import JobKind, JobState


async def get_job(session: AsyncSession, job_id: str, *, kind: JobKind | None = None) -> Job:
    """The job; raises NotFound, also for a job of another kind than is wanted."""
    job = await session.scalar(statements.job_by_id(job_id))
    if job is None or kind not in (None, job.kind):
        raise NotFound(f"No {kind or 'job'} {job_id}.", param="id")
    return job


async def get_attempts(session: AsyncSession, job_id: str) -> list[JobAttempt]:
    """The attempts at a job, first to last."""
    return list(await session.scalars(statements.attempts_of(job_id)))


async def wait_for_end(
    transactions: Transactions,
    job_id: str,
    *,
    at_most: timedelta,
    longest_rest: timedelta,
    now: Callable[[], float],
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
) -> Job:
    """The job once it has ended, or as it is when the time is up; raises NotFound. ``now`` counts seconds."""
    deadline = now() + at_most.total_seconds()
    rests = growing(longest_rest)
    while True:
        async with transactions() as session:
            job = await get_job(session, job_id)
        remaining = deadline - now()
        if JobState(job.state).is_terminal or remaining <= 0:
            return job
        await sleep(min(next(rests), remaining))
