"""The types of events and the record of them: the same rows feed SSE, ``/v1/events`` and the webhooks."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import Session

from core.jobs import statements
from core.jobs.states import PAUSABLE, JobKind


class Verb(StrEnum):
    """What happened. An event's type is ``{job kind}.{verb}``."""

    QUEUED = "queued"  # accepted, or back in the queue after a failed attempt
    STARTED = "started"  # a worker has it
    PROGRESS = "progress"  # it moved on; at most one per 500 ms and job
    CHECKPOINT = "checkpoint"  # a killed attempt would go on from here
    PREVIEW = "preview"  # pictures by what is learned so far
    PAUSED = "paused"  # out of the queue, or given back by its worker
    RESUMED = "resumed"  # may be run again
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELED = "canceled"
    EXPIRED = "expired"


_ONLY_OF: Mapping[Verb, frozenset[JobKind]] = {
    Verb.CHECKPOINT: frozenset({JobKind.TRAINING, JobKind.DISTILLATION}),
    Verb.PREVIEW: frozenset({JobKind.TRAINING, JobKind.DISTILLATION}),
    Verb.PAUSED: PAUSABLE,
    Verb.RESUMED: PAUSABLE,
}

EVENT_TYPES: tuple[str, ...] = tuple(
    f"{kind}.{verb}" for kind in JobKind for verb in Verb if kind in _ONLY_OF.get(verb, frozenset(JobKind))
)


@dataclass(frozen=True)
class Happening:
    """Something that happened to a job; ``extra`` is merged into the event's data."""

    job_id: str
    verb: Verb
    extra: Mapping[str, Any] = field(default_factory=dict)

    def as_item(self) -> dict[str, Any]:
        """The row that ``RECORD_EVENTS`` reads."""
        return {"job_id": self.job_id, "verb": self.verb, "extra": dict(self.extra)}


def record(session: Session, happenings: Iterable[Happening]) -> None:
    """Write the events and the deliveries owed for them, in the caller's transaction; one per job at most."""
    items = [h.as_item() for h in happenings]
    if items:
        session.execute(statements.RECORD_EVENTS, {"items": items})


async def record_async(session: AsyncSession, happenings: Iterable[Happening]) -> None:
    """The same for the API."""
    items = [h.as_item() for h in happenings]
    if items:
        await session.execute(statements.RECORD_EVENTS, {"items": items})
