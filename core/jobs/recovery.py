"""What brings jobs back: expired leases are reaped, due retries are promoted. Bounded passes that return counts."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from sqlalchemy.orm import Session

from core.jobs import statements
from core.jobs.execution import Ending, Return, finish, requeue
from core.jobs.retry import WORKER_LOST, backoff
from core.jobs.states import AttemptOutcome, JobState
from core.scheduling import statements as scheduling

_PASS = 200  # rows of one pass, so that no pass holds locks for long


@dataclass(frozen=True)
class ReapCounts:
    """What one pass over expired leases did."""

    requeued: int = 0
    failed: int = 0
    canceled: int = 0


def reap(session: Session, *, jitter: Callable[[], float]) -> ReapCounts:
    """Take jobs from workers that stopped renewing: back to the queue, or ended when canceled or out of attempts."""
    endings: list[Ending] = []
    returns: list[Return] = []
    for row in session.execute(statements.EXPIRED_LEASES, {"limit": _PASS}):
        delay = backoff(WORKER_LOST, attempt=row.attempt, max_attempts=row.max_attempts, jitter=jitter)
        if row.cancel_requested:
            endings.append(Ending(row.id, row.token, JobState.CANCELED, 0.0, outcome=AttemptOutcome.LOST))
        elif delay is None:
            ending = Ending(row.id, row.token, JobState.FAILED, 0.0, error=WORKER_LOST, outcome=AttemptOutcome.LOST)
            endings.append(ending)
        else:
            returns.append(Return(row.id, row.token, AttemptOutcome.LOST, 0.0, delay=delay, error=WORKER_LOST))
    finish(session, endings)
    requeue(session, returns)
    failed = sum(end.state is JobState.FAILED for end in endings)
    return ReapCounts(requeued=len(returns), failed=failed, canceled=len(endings) - failed)


def promote(session: Session) -> int:
    """Make jobs whose not-before time has come claimable; returns how many."""
    ids = list(session.execute(scheduling.PROMOTE, {"limit": _PASS}).scalars())
    if ids:
        session.execute(scheduling.ENQUEUE, {"ids": ids})
        session.execute(scheduling.WAKE, {"ids": ids})
    return len(ids)


def admit(session: Session) -> int:
    """Give free places of keys with a cap to jobs that wait for one; returns how many. They are due for promotion."""
    if not session.scalar(scheduling.ADMIT_ALONE):
        return 0
    return len(session.execute(scheduling.ADMIT, {"limit": _PASS}).all())
