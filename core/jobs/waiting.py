"""Waiting for a job's end without holding a transaction."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from datetime import timedelta

from core.db.transactions import Transactions
from core.errors import NotFound
from core.jobs import statements
from core.jobs.models import Job
from core.jobs.states import JobState


async def wait_for_end(
    transactions: Transactions,
    job_id: str,
    *,
    at_most: timedelta,
    interval: timedelta,
    now: Callable[[], float],
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
) -> Job:
    """The job once it has ended, or as it is when the time is up; raises NotFound. ``now`` counts seconds."""
    deadline = now() + at_most.total_seconds()
    while True:
        async with transactions() as session:
            job = await session.scalar(statements.job_by_id(job_id))
        if job is None:
            raise NotFound(f"No job {job_id}.", param="id")
        remaining = deadline - now()
        if JobState(job.state).is_terminal or remaining <= 0:
            return job
        await sleep(min(interval.total_seconds(), remaining))
