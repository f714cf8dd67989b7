"""Claiming jobs, renewing leases and ending attempts: the workers' side of the queue.

Each function runs in the caller's transaction and commits nothing. Whatever is written about a running job is
guarded by its token: a worker that lost its lease changes nothing, whatever it still believes.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from psycopg.types.json import Jsonb
from pydantic import TypeAdapter, ValidationError
from sqlalchemy import Row
from sqlalchemy.orm import Session

from core.db.pipeline import BY_INDEX, Call, Rows, exchange
from core.jobs import statements
from core.jobs.events import Happening, Verb, record
from core.jobs.params import AnyParams, JobParams, is_training_lane
from core.jobs.retry import JobError
from core.jobs.states import AttemptOutcome, JobStage, JobState
from core.scheduling.fairshare import select_batch
from core.scheduling.queue import SqlQueue

_PARAMS: TypeAdapter[AnyParams] = TypeAdapter(JobParams)
_MOST_ROUNDS = 64  # batches canceled at this very moment before a claim gives up its turn
_RELEASE_PAUSE = timedelta(seconds=30)  # until a worker of another release may have its turn
_YIELD_REST = timedelta(seconds=15)  # of a job that made way, while those it made way for are served


@dataclass(frozen=True)
class ClaimedJob:
    """A job held under ``token``."""

    id: str
    token: int
    tenant_id: str
    params: AnyParams
    checkpoint: Mapping[str, Any] | None
    attempt: int
    max_attempts: int
    traceparent: str | None  # where in which trace it belongs
    created_at: datetime


@dataclass(frozen=True)
class Held:
    """What holding a lease says: whether somebody asked to cancel, to pause, or to make way for others."""

    cancel_requested: bool
    pause_requested: bool
    yield_requested: bool


@dataclass(frozen=True)
class Ending:
    """How an attempt ended the job: succeeded with a result, failed with an error, or canceled."""

    job_id: str
    token: int
    state: JobState
    gpu_seconds: float
    result: Mapping[str, Any] | None = None
    error: JobError | None = None
    outcome: AttemptOutcome | None = None  # when the attempt ended otherwise than the job: it was lost
    timings: Mapping[str, float] | None = None  # seconds of each part of the work


@dataclass(frozen=True)
class Return:
    """A job that goes back to the queue: after a failure (counted) or unharmed (not counted)."""

    job_id: str
    token: int
    outcome: AttemptOutcome
    gpu_seconds: float
    delay: timedelta = timedelta(0)
    error: JobError | None = None


def claim(
    session: Session,
    *,
    pool: str,
    worker_id: str,
    warm: frozenset[str],
    room: int,
    lease: timedelta,
    cohort: int = 1,
) -> list[ClaimedJob]:
    """Take the next fair batch of jobs that can run together; empty when nothing is runnable.

    At most ``room`` generations or ``cohort`` trainings. ``warm`` are the ids of models the worker holds. Serialised
    per pool by an advisory lock until commit.
    """
    queue = SqlQueue(session, pool, worker_id)

    def most(lane: str) -> int:
        return cohort if is_training_lane(lane) else room

    for _ in range(_MOST_ROUNDS):
        batch = select_batch(queue, warm=warm, most=most)
        if batch is None:
            return []
        ids = [job.job_id for job in batch.jobs]
        values = {"ids": ids, "pool": pool, "worker_id": worker_id, "warm": sorted(warm), "lease": lease}
        rows = {row["id"]: row for row in queue.take(batch, (statements.TAKE, values))}
        if jobs := _understood(session, [rows[job_id] for job_id in ids if job_id in rows]):
            return jobs
    return []


def _understood(session: Session, rows: Rows) -> list[ClaimedJob]:
    """The jobs whose parameters this release can read; the others are left to another one, or fail in the end."""
    jobs: list[ClaimedJob] = []
    for row in rows:
        try:
            params = _PARAMS.validate_python(row["params"])
        except ValidationError as problem:
            message = f"{problem.error_count()} of its parameters are unknown to this release."
            error = JobError("params-unreadable", message, retryable=True)
            job_id, token = row["id"], row["token"]
            if row["attempt"] >= row["max_attempts"]:
                finish(session, [Ending(job_id, token, JobState.FAILED, 0.0, error=error)])
            else:
                back = Return(job_id, token, AttemptOutcome.FAILED, 0.0, delay=_RELEASE_PAUSE, error=error)
                requeue(session, [back])
        else:
            jobs.append(ClaimedJob(**(row | {"params": params})))
    return jobs


def renew(session: Session, jobs: Sequence[ClaimedJob], *, lease: timedelta) -> dict[int, Held]:
    """Extend the leases; a token that is missing from the answer is lost."""
    hold(session, jobs)
    return _held(session.execute(statements.RENEW, {**_ids_and_tokens(jobs), "lease": lease}))


def look(session: Session, jobs: Sequence[ClaimedJob]) -> dict[int, Held]:
    """Say the same without extending or writing anything."""
    return _held(session.execute(statements.LOOK, _ids_and_tokens(jobs)))


def _held(rows: Iterable[Row[Any]]) -> dict[int, Held]:
    return {row.token: Held(row.cancel_requested, row.pause_requested, row.yield_requested) for row in rows}


def _ids_and_tokens(jobs: Sequence[ClaimedJob]) -> dict[str, Any]:
    return {"ids": [job.id for job in jobs], "tokens": [job.token for job in jobs]}


def report(
    session: Session,
    job: ClaimedJob,
    *,
    stage: JobStage | None = None,
    progress: Mapping[str, Any] | None = None,
    checkpoint: Mapping[str, Any] | None = None,
    preview: Mapping[str, Any] | None = None,
) -> bool:
    """Say how far the job is; False when its lease is lost.

    A checkpoint is where the next attempt goes on, a preview a file that shows what there is by now; one of progress,
    checkpoint and preview at a time.
    """
    values = {"stage": stage, "progress": progress, "checkpoint": checkpoint}
    held = session.execute(statements.REPORT, {"job_id": job.id, "token": job.token, **values}).one_or_none()
    if held is None:
        return False
    if checkpoint is not None:
        record(session, [Happening(job.id, Verb.CHECKPOINT, {"step": checkpoint["step"]})])
    elif preview is not None:
        record(session, [Happening(job.id, Verb.PREVIEW, {"preview": dict(preview)})])
    elif progress is not None:
        record(session, [Happening(job.id, Verb.PROGRESS)])
    return True


def hold(session: Session, jobs: Iterable[ClaimedJob]) -> set[str]:
    """Lock the jobs that are still ours until commit; the caller may then write what they produced."""
    return set(_lock(session, {job.id: job.token for job in jobs}))


def _lock(session: Session, tokens: Mapping[str, int]) -> dict[str, bool]:
    """Lock what is still ours, in the one order; says of each whether its cancel was requested."""
    _, rows = exchange(session, BY_INDEX, _holding(tokens))
    return {row["id"]: row["cancel_requested"] for row in rows}


def _holding(tokens: Mapping[str, int]) -> Call:
    return statements.HOLD, {"ids": list(tokens), "tokens": list(tokens.values())}


def finish(session: Session, endings: Sequence[Ending]) -> set[str]:
    """End jobs for good, with their events; returns the ids that were still ours."""
    items = [
        {
            "job_id": end.job_id,
            "token": end.token,
            "state": end.state,
            "outcome": end.outcome or AttemptOutcome(end.state),
            "result": None if end.result is None else dict(end.result),
            "error": None if end.error is None else end.error.as_dict(),
            "gpu_seconds": end.gpu_seconds,
            "timings": None if end.timings is None else dict(end.timings),
        }
        for end in endings
    ]
    holding = _holding({end.job_id: end.token for end in endings})
    *_, ended = exchange(session, BY_INDEX, holding, (statements.FINISH, {"items": Jsonb(items)}))
    return {row["id"] for row in ended}


def requeue(session: Session, returns: Sequence[Return]) -> set[str]:
    """Put jobs back into the queue, not before their delay has passed; one that was canceled ends instead.

    Returns the ids that were still ours.
    """
    held = _lock(session, {back.job_id: back.token for back in returns})
    canceled = [back for back in returns if held.get(back.job_id)]
    ended = finish(
        session,
        [Ending(back.job_id, back.token, JobState.CANCELED, back.gpu_seconds) for back in canceled],
    )
    return ended | _put_back(session, [back for back in returns if back not in canceled])


def _put_back(session: Session, returns: Sequence[Return]) -> set[str]:
    items = [
        {
            "job_id": back.job_id,
            "token": back.token,
            "outcome": back.outcome,
            "error": None if back.error is None else back.error.as_dict(),
            "delay_ms": int(back.delay.total_seconds() * 1000),
            "gpu_seconds": back.gpu_seconds,
        }
        for back in returns
    ]
    rows = session.execute(statements.REQUEUE, {"items": items, "rest": _YIELD_REST})
    moved = {row.id: row.paused for row in rows}
    happenings = []
    for back in returns:
        if back.job_id in moved:
            verb = Verb.PAUSED if moved[back.job_id] else Verb.QUEUED
            happenings.append(Happening(back.job_id, verb, {"retry_of": back.error.as_dict()} if back.error else {}))
    record(session, happenings)
    return set(moved)
