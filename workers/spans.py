"""An attempt's parts as spans: what a batch did together, each of its jobs has in its own trace."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from core.jobs.execution import ClaimedJob
from core.tracing import Attributes, SpanKind, Tracing

_NAMES: Final[Mapping[str, str]] = {"sample": "U-Net"}  # of parts that people know by another name


@dataclass(frozen=True)
class Part:
    """Something an attempt did, by Unix times; what the engine told of it belongs ``within`` its conversation."""

    name: str
    began_at: float
    ended_at: float
    within: str | None = None


@dataclass(frozen=True)
class Told:
    """What is told of all jobs of a batch."""

    worker_id: str
    pool: str
    batch_size: int


def tell(
    tracing: Tracing, told: Told, job: ClaimedJob, parts: Sequence[Part], *, ended_at: float, error: str | None
) -> None:
    """Tell of one job's attempt, where the job belongs to a trace: its wait before, then the attempt with its parts."""
    if job.traceparent is None or not parts:
        return
    began_at = min(part.began_at for part in parts)
    if job.attempt == 1:
        # The database's clock against this machine's: a wait is never told to be less than none.
        accepted_at = min(job.created_at.timestamp(), began_at)
        tracing.record("wait", accepted_at, began_at, parent=job.traceparent)
    attributes: Attributes = {
        "lockstep.job_id": job.id,
        "lockstep.tenant_id": job.tenant_id,
        "lockstep.kind": job.params.kind,
        "lockstep.model_id": job.params.model_id,
        "lockstep.attempt": job.attempt,
        "lockstep.worker_id": told.worker_id,
        "lockstep.pool": told.pool,
        "lockstep.batch_size": told.batch_size,
    }
    name = f"{job.params.kind} attempt"
    attempt = tracing.record(
        name, began_at, ended_at, parent=job.traceparent, kind=SpanKind.CONSUMER, attributes=attributes, error=error
    )
    spans: dict[str | None, str] = {None: attempt}
    for part in sorted(parts, key=lambda part: part.within is not None):
        spot = tracing.record(_NAMES.get(part.name, part.name), part.began_at, part.ended_at, parent=spans[part.within])
        spans.setdefault(part.name, spot)
