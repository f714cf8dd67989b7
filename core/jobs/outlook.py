"""Why a job waits, what would let it start, and when it may: words for what the queue says."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from sqlalchemy.ext.asyncio import AsyncSession

from core.jobs.models import Job
from core.jobs.states import JobState
from core.scheduling import statements
from core.scheduling.estimates import Calibration, work_ahead_ms


class Reason(StrEnum):
    """Why a job does not run, the first that applies."""

    RUNNING = "running"
    ENDED = "ended"
    PAUSED = "paused"
    WAITING_FOR_JOBS = "waiting_for_jobs"
    KEY_CAP = "key_cap"
    NOT_BEFORE = "not_before"
    POOL_PAUSED = "pool_paused"
    TENANT_PAUSED = "tenant_paused"
    MODEL_PAUSED = "model_paused"
    NO_WORKER = "no_worker"
    CAP = "cap"
    BEHIND_OWN_JOBS = "behind_own_jobs"
    BEHIND_OTHERS = "behind_others"
    STARTING = "starting"


_WORDS: dict[Reason, tuple[str, str | None]] = {
    Reason.RUNNING: ("A worker has it.", None),
    Reason.ENDED: ("It has ended.", None),
    Reason.PAUSED: ("It was paused.", "Resume it."),
    Reason.WAITING_FOR_JOBS: ("Jobs that were made for it have not all succeeded yet.", "Their success."),
    Reason.KEY_CAP: (
        "As many jobs of its API key run or are next as the key may have.",
        "The end of one of them, or a higher cap of the key.",
    ),
    Reason.NOT_BEFORE: ("An attempt failed, and the next one waits for its time.", "Time."),
    Reason.POOL_PAUSED: ("The operator has paused the pool.", "The operator's resuming it."),
    Reason.TENANT_PAUSED: ("The operator has paused your jobs in this pool.", "The operator's resuming them."),
    Reason.MODEL_PAUSED: ("The operator has paused the model.", "The operator's resuming it, or another model."),
    Reason.NO_WORKER: ("No worker of its pool is there.", "A worker's coming back."),
    Reason.CAP: ("As many of your jobs run as may run at once.", "The end of one of them, or a higher cap."),
    Reason.BEHIND_OWN_JOBS: ("Your own earlier jobs are first.", "Their turn, a higher priority, or fewer of them."),
    Reason.BEHIND_OTHERS: ("It is other tenants' turn first.", "Their turn, or more workers."),
    Reason.STARTING: ("It is next.", None),
}
_UNKNOWABLE = {
    Reason.PAUSED,
    Reason.WAITING_FOR_JOBS,
    Reason.KEY_CAP,
    Reason.POOL_PAUSED,
    Reason.TENANT_PAUSED,
    Reason.MODEL_PAUSED,
    Reason.NO_WORKER,
}


@dataclass(frozen=True)
class Queued:
    """What the queue says of a job that waits: its pool, and what is ahead of it there."""

    own_ahead: int
    others_ahead: int
    tenants_ahead: int
    running_ms: int
    ahead_ms: int
    workers: int
    pool_paused: bool
    model_paused: bool
    tenant_paused: bool
    at_cap: bool
    median_log: float | None
    high_log: float | None

    @property
    def estimated_ms(self) -> float:
        """Milliseconds of the work ahead of it."""
        return work_ahead_ms(self.running_ms, self.ahead_ms, self.workers)

    @property
    def calibration(self) -> Calibration:
        """How late starts in this pool are."""
        if self.median_log is None or self.high_log is None:
            return Calibration()
        return Calibration(median_log=self.median_log, high_log=self.high_log)


@dataclass(frozen=True)
class Outlook:
    """Why a job waits, in a code and in words, and when it may start, in seconds from now; None: nobody can know."""

    reason: Reason
    detail: str
    unblocked_by: str | None
    position: int | None = None  # among its tenant's jobs, from 1
    jobs_ahead: int | None = None  # in the pool, about
    tenants_ahead: int | None = None
    starts_in: tuple[float, float] | None = None  # half, and nine tenths, of such jobs have started by then


async def outlook(session: AsyncSession, job: Job) -> Outlook:
    """Why the job waits; what it is worth when it does not is its state."""
    row = (await session.execute(statements.OUTLOOK, {"job_id": job.id})).one_or_none()
    return explain(job, None if row is None else Queued(**row._mapping))


def explain(job: Job, queued: Queued | None) -> Outlook:
    """Put in words what is known."""
    reason = _reason(job, queued)
    told = Outlook(reason, *_WORDS[reason])
    if queued is None or job.state != JobState.QUEUED:
        return told
    starts_in = None if reason in _UNKNOWABLE else queued.calibration.start_seconds(queued.estimated_ms)
    ahead = queued.own_ahead + queued.others_ahead
    return Outlook(reason, told.detail, told.unblocked_by, queued.own_ahead + 1, ahead, queued.tenants_ahead, starts_in)


def _reason(job: Job, queued: Queued | None) -> Reason:
    if job.state != JobState.QUEUED:
        return Reason.RUNNING if job.state == JobState.RUNNING else Reason.ENDED
    told = {
        Reason.PAUSED: job.pause_requested_at is not None,
        Reason.WAITING_FOR_JOBS: job.blocked,
        Reason.KEY_CAP: job.key_place == "waiting",
        Reason.NOT_BEFORE: job.not_before is not None and job.attempt > 0,
    }
    if queued is not None:
        told |= {
            Reason.POOL_PAUSED: queued.pool_paused,
            Reason.TENANT_PAUSED: queued.tenant_paused,
            Reason.MODEL_PAUSED: queued.model_paused,
            Reason.NO_WORKER: queued.workers == 0,
            Reason.CAP: queued.at_cap,
            Reason.BEHIND_OWN_JOBS: queued.own_ahead > 0 and queued.own_ahead >= queued.others_ahead,
            Reason.BEHIND_OTHERS: queued.others_ahead > 0,
        }
    return next((reason for reason, holds in told.items() if holds), Reason.STARTING)
