"""Many jobs at once on the wire."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from api.schemas.common import GivenTime, Reference, RequestBody, Resource
from core.control.bulk import MOST_CANCELED, MOST_RETRIED, Dealt
from core.jobs.states import JobKind

GivenKind = Annotated[JobKind, Field(strict=False)]  # JSON has only strings for it


class RetryJob(RequestBody):
    """Nothing to say: the new job does what the old one was to do."""


class _Filter(RequestBody):
    kind: GivenKind | None = Field(default=None, description="Only jobs of this kind.")
    model: Reference | None = Field(default=None, description="Only jobs of this model, by name or id.")
    created_after: GivenTime | None = Field(default=None, description="Only jobs accepted then or later.")
    created_before: GivenTime | None = Field(default=None, description="Only jobs accepted before.")
    dry_run: bool = Field(default=False, description="Change nothing, only say which jobs it would be.")


class CancelJobs(_Filter):
    """Which jobs to cancel; nothing named means all that wait or run."""

    state: Literal["queued", "running"] | None = Field(default=None, description="Only jobs in this state.")
    limit: int = Field(default=MOST_CANCELED, ge=1, le=MOST_CANCELED, description="Most jobs of this call.")


class RetryJobs(_Filter):
    """Which jobs to try again; nothing named means all that did not succeed and were not tried again yet."""

    state: Literal["failed", "canceled", "expired"] | None = Field(default=None, description="Only jobs in this state.")
    limit: int = Field(default=MOST_RETRIED, ge=1, le=MOST_RETRIED, description="Most jobs of this call.")


class Refusal(Resource):
    """A job that could not be tried again, and why."""

    id: str
    code: str
    message: str


class BulkResult(Resource):
    """What became of the oldest jobs that were chosen. Repeat the call while `has_more`."""

    object: Literal["bulk"] = "bulk"
    dry_run: bool
    count: int = Field(description="How many jobs it was, or would be.")
    ids: list[str] = Field(
        description="Of the jobs that were canceled; of the new jobs; in a dry run, of those chosen."
    )
    refused: list[Refusal]
    has_more: bool = Field(description="Whether more jobs fit than one call deals with.")

    @classmethod
    def of(cls, dealt: Dealt, *, dry_run: bool) -> BulkResult:
        """The result as it is shown."""
        refused = [Refusal(id=job_id, code=error.code, message=error.detail) for job_id, error in dealt.refused]
        return cls(dry_run=dry_run, count=len(dealt.ids), ids=list(dealt.ids), refused=refused, has_more=dealt.has_more)
