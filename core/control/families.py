"""Jobs that were made for another one, which waits for them: set free when all have succeeded, failed when one cannot.

Children know nothing of this: they end like any job. One pass looks at all parents, so nothing is lost with a process,
and no child's transaction waits for its siblings'.
"""

from __future__ import annotations

from dataclasses import dataclass

from sqlalchemy.orm import Session

from core.control import statements
from core.control.canceling import cancel_locked
from core.jobs.events import Happening, Verb, record
from core.jobs.params import DistillationParams, TeacherPairsParams
from core.jobs.retry import JobError


@dataclass(frozen=True)
class FamilyCounts:
    """How many parents could go on, and how many never will."""

    unblocked: int = 0
    failed: int = 0


def settle(session: Session) -> FamilyCounts:
    """Move one parent whose children have said enough; a transaction that held several families could deadlock."""
    row = session.execute(statements.SETTLED_FAMILY).one_or_none()
    if row is None:
        return FamilyCounts()
    if row.complete:
        return FamilyCounts(unblocked=len(session.execute(statements.UNBLOCK, {"job_id": row.id}).all()))
    return FamilyCounts(failed=_fail(session, row.id, culprit=row.culprit))


def _fail(session: Session, job_id: str, *, culprit: str) -> int:
    """Fail the parent and cancel those of its children that have not ended; 0 if it moved meanwhile."""
    error = JobError("child-failed", f"The job {culprit}, which was made for this one, did not succeed.", False)
    family = session.execute(statements.LOCK_FAMILY, {"job_id": job_id}).all()
    if not session.execute(statements.FAIL_BLOCKED, {"job_id": job_id, "error": error.as_dict()}).all():
        return 0
    canceled = cancel_locked(session, [row for row in family if row.id != job_id])
    record(session, [Happening(job_id, Verb.FAILED), *canceled])
    return 1


def distillation_params(session: Session, job_id: str) -> DistillationParams | None:
    """What a distillation was asked to do, for a job that was made for it; None when it is gone."""
    row = session.execute(statements.PARAMS, {"job_id": job_id}).one_or_none()
    return None if row is None else DistillationParams.model_validate(row.params)


def pair_files(session: Session, job_id: str) -> list[str]:
    """The ids of the files that a distillation's shards lie in, in their order."""
    rows = session.execute(statements.CHILD_RESULTS, {"job_id": job_id}).all()
    shards = {TeacherPairsParams.model_validate(row.params).shard: str(row.result["file_id"]) for row in rows}
    return [shards[shard] for shard in sorted(shards)]
