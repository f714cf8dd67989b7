"""Cancelling and retrying many jobs at once, by what they are: bounded, in the request's transaction."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import TextClause
from sqlalchemy.ext.asyncio import AsyncSession

from core.control import statements
from core.control.canceling import cancel_locked
from core.errors import LockstepError
from core.jobs.events import record_async
from core.jobs.retrying import RETRYABLE, retry
from core.jobs.states import JobKind, JobState
from core.jobs.submission import QueueLimits

MOST_CANCELED = 1000  # in one request
MOST_RETRIED = 200  # each is accepted like a new one

CANCELABLE = frozenset({JobState.QUEUED, JobState.RUNNING})


@dataclass(frozen=True)
class Chosen:
    """Which jobs: of these kinds, in one state or any that fits, of one model, from a stretch of time."""

    kinds: frozenset[JobKind]
    state: JobState | None = None
    model_id: str | None = None
    created_after: datetime | None = None
    created_before: datetime | None = None

    def values(self, fitting: Iterable[JobState]) -> dict[str, Any]:
        """The parameters of the statements, for jobs in those ``fitting`` states."""
        return {
            "kinds": sorted(self.kinds),
            "states": sorted(state for state in fitting if self.state in {None, state}),
            "model_id": self.model_id,
            "created_after": self.created_after,
            "created_before": self.created_before,
        }


@dataclass(frozen=True)
class Dealt:
    """What became of them: those that were chosen (or done), those that could not be, and whether more are left."""

    ids: tuple[str, ...]
    refused: tuple[tuple[str, LockstepError], ...] = ()
    has_more: bool = False


async def cancel_many(session: AsyncSession, chosen: Chosen, *, limit: int, dry_run: bool) -> Dealt:
    """Cancel the oldest of them with those made for them; with ``dry_run`` only say which."""
    ids, has_more = await _find(session, statements.CANCELABLE, chosen.values(CANCELABLE), limit)
    if not dry_run:
        family = (await session.execute(statements.LOCK_FAMILIES, {"ids": list(ids)})).all()
        await record_async(session, await session.run_sync(cancel_locked, family))
    return Dealt(ids, has_more=has_more)


async def retry_many(
    session: AsyncSession, tenant_id: str, chosen: Chosen, *, limits: QueueLimits, limit: int, dry_run: bool
) -> Dealt:
    """Try the oldest of them again, each as a new job, whose ids come back; what one is refused for stops no other."""
    ids, has_more = await _find(session, statements.RETRYABLE, chosen.values(RETRYABLE), limit)
    if dry_run:
        return Dealt(ids, has_more=has_more)
    made: list[str] = []
    refused: list[tuple[str, LockstepError]] = []
    for job_id in ids:
        try:
            async with session.begin_nested():
                made.append((await retry(session, tenant_id, job_id, limits=limits)).id)
        except LockstepError as error:
            refused.append((job_id, error))
    return Dealt(tuple(made), tuple(refused), has_more)


async def _find(
    session: AsyncSession, statement: TextClause, values: dict[str, Any], limit: int
) -> tuple[tuple[str, ...], bool]:
    found = tuple((await session.execute(statement, {**values, "limit": limit + 1})).scalars())
    return found[:limit], len(found) > limit
