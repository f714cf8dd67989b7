"""Deadlines: what still waits when its own has passed expires, what runs is asked to stop and ends as canceled."""

from __future__ import annotations

from dataclasses import dataclass

from sqlalchemy.orm import Session

from core.control import statements
from core.jobs.events import Happening, Verb, record
from core.jobs.retry import JobError
from core.jobs.states import JobState
from core.scheduling import statements as scheduling

_PASS = 200  # rows of one pass, so that no pass holds locks for long
_WAITED = JobError("deadline-passed", "It had not started when its deadline passed.", retryable=False)
_RAN = JobError("deadline-passed", "It was still running when its deadline passed.", retryable=False)


@dataclass(frozen=True)
class ExpireCounts:
    """How many jobs expired, and how many that run were asked to stop."""

    expired: int = 0
    stopped: int = 0


def expire(session: Session) -> ExpireCounts:
    """End what is overdue, one batch."""
    jobs = session.execute(statements.LOCK_OVERDUE, {"limit": _PASS}).all()
    waiting = [job.id for job in jobs if job.state == JobState.QUEUED]
    running = [job.id for job in jobs if job.state == JobState.RUNNING]
    if waiting:
        session.execute(statements.EXPIRE_QUEUED, {"ids": waiting, "error": _WAITED.as_dict()})
        session.execute(scheduling.UNQUEUE, {"ids": waiting})
        record(session, [Happening(job_id, Verb.EXPIRED) for job_id in waiting])
    if running:
        session.execute(statements.CANCEL_OVERDUE, {"ids": running, "error": _RAN.as_dict()})
    return ExpireCounts(expired=len(waiting), stopped=len(running))
