"""Jobs of every kind, and what can be done to many of them at once."""

from __future__ import annotations

from datetime import datetime
from typing import Any, TypedDict, Unpack

from lockstep.models import BulkResult, Job
from lockstep.resources import JobsOf


class JobFilter(TypedDict, total=False):
    """Which jobs; what is left out does not matter. Times are those of acceptance, and need a zone."""

    kind: str | None
    state: str | None
    model: str | None
    created_after: datetime | None
    created_before: datetime | None


class Jobs(JobsOf[Job]):
    """Jobs of every kind."""

    _path = "/v1/jobs"
    _kind = Job

    def retry(self, job_id: str, *, idempotency_key: str | None = None, cancel_after: int | str | None = None) -> Job:
        """Try again, once, what failed, was canceled or expired: a new job with the same parameters."""
        answer = self._transport.post(
            f"{self._path}/{job_id}/retry", idempotency_key=idempotency_key, cancel_after=cancel_after
        )
        return Job.model_validate(answer.json())

    def cancel_many(
        self, *, dry_run: bool = False, limit: int | None = None, **chosen: Unpack[JobFilter]
    ) -> BulkResult:
        """Cancel the oldest jobs of a filter, at most ``limit`` or 1000; ``dry_run`` only tells which."""
        return self._bulk("cancel", dry_run, limit, chosen)

    def retry_many(self, *, dry_run: bool = False, limit: int | None = None, **chosen: Unpack[JobFilter]) -> BulkResult:
        """Try the oldest jobs of a filter again that did not succeed, at most ``limit`` or 200."""
        return self._bulk("retry", dry_run, limit, chosen)

    def _bulk(self, verb: str, dry_run: bool, limit: int | None, chosen: JobFilter) -> BulkResult:
        times = {name: at.isoformat() for name, at in chosen.items() if isinstance(at, datetime)}
        body: dict[str, Any] = {**chosen, **times, "dry_run": dry_run, "limit": limit}
        return BulkResult.model_validate(self._transport.post(f"{self._path}/{verb}", body).json())
