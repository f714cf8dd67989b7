"""Cancelling jobs that the caller has locked, for whoever decides it: a client, or the end of another job."""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy import Row
from sqlalchemy.orm import Session

from core.control import statements
from core.jobs.events import Happening, Verb
from core.jobs.states import JobState
from core.scheduling import statements as scheduling


def cancel_locked(session: Session, jobs: Sequence[Row[tuple[str, str, bool]]]) -> list[Happening]:
    """End what is queued at once, ask the workers of what runs to stop; return what the caller records of it."""
    queued = [job.id for job in jobs if job.state == JobState.QUEUED]
    session.execute(statements.CANCEL_QUEUED, {"ids": queued})
    session.execute(scheduling.UNQUEUE, {"ids": queued})
    session.execute(statements.REQUEST_CANCEL, {"ids": [job.id for job in jobs if job.state == JobState.RUNNING]})
    return [Happening(job_id, Verb.CANCELED) for job_id in queued]
