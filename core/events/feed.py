"""Reading events: a page of all that happened, or one job's as they come."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from datetime import timedelta

from sqlalchemy.ext.asyncio import AsyncSession

from core.db.paging import Page
from core.db.transactions import Transactions
from core.errors import Invalid, NotFound
from core.events import statements
from core.events.statements import Cursor
from core.events.types import ALL_TYPES
from core.jobs import statements as job_statements
from core.jobs.models import Event
from core.jobs.pauses import growing
from core.jobs.states import JobState

_BATCH = 100


async def read_feed(
    session: AsyncSession, *, event_type: str | None, job_id: str | None, after: str | None, limit: int
) -> Page[Event]:
    """Events oldest first, from the one after ``after``; raises NotFound when that one is gone, and Invalid."""
    if event_type is not None and event_type not in ALL_TYPES:  # it would be looked for in all there is
        raise Invalid(f"There are no events of type {event_type!r}.", param="type")
    cursor = None
    if after is not None:
        row = (await session.execute(statements.cursor_of(after))).one_or_none()
        if row is None:
            raise NotFound(f"No event {after} to go on from.", param="after")
        cursor = Cursor(*row)
    page = statements.feed_page(event_type=event_type, job_id=job_id, after=cursor, limit=limit + 1)
    found = list(await session.scalars(page))
    return Page(found[:limit], has_more=len(found) > limit)


async def follow_job(
    transactions: Transactions, job_id: str, *, after_sequence: int, longest_rest: timedelta
) -> AsyncIterator[Sequence[Event]]:
    """A job's events from the one after ``after_sequence`` to its last, as they are committed.

    Yields what each look found, possibly nothing; ends once the job has ended and all was told. No transaction is
    open between looks.
    """
    told = after_sequence
    rests = growing(longest_rest)
    while True:
        # A stream whose client leaves is cancelled: not amid a statement, which would cost the connection.
        events, ended = await asyncio.shield(_look(transactions, job_id, told))
        yield events
        if events:
            told = events[-1].sequence
        if len(events) == _BATCH:
            continue
        if ended:
            return
        await asyncio.sleep(next(rests))


async def _look(transactions: Transactions, job_id: str, told: int) -> tuple[Sequence[Event], bool]:
    """The next events, and whether the job had ended before they were read: then these are its last."""
    async with transactions() as session:
        job = await session.scalar(job_statements.job_by_id(job_id))
        if job is None:
            return (), True
        ended = JobState(job.state).is_terminal
        if job.event_sequence <= told:
            return (), ended
        statement = job_statements.events_of(job_id, after_sequence=told, limit=_BATCH)
        return list(await session.scalars(statement)), ended
