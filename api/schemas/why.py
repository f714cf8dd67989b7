"""Why a job waits, on the wire."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from api.schemas.common import Resource
from core.jobs.outlook import Outlook, Reason


class StartEstimate(Resource):
    """When such jobs have started, in seconds from now, as past ones did."""

    p50: float = Field(description="Half of them.")
    p90: float = Field(description="Nine tenths of them.")


class Why(Resource):
    """Why a job does not run yet."""

    object: Literal["job.why"] = "job.why"
    reason: Reason
    detail: str = Field(description="The reason in words.")
    unblocked_by: str | None = Field(description="What would let it start.")
    position: int | None = Field(description="Its place among your own queued jobs, from 1; null once it runs.")
    jobs_ahead: int | None = Field(description="About how many jobs of its pool are served first, your own included.")
    tenants_ahead: int | None = Field(description="How many other tenants' turn comes first.")
    starts_in: StartEstimate | None = Field(description="Null where nobody can know.")

    @classmethod
    def of(cls, outlook: Outlook) -> Why:
        """The outlook as it is shown."""
        estimate = outlook.starts_in
        return cls(
            reason=outlook.reason,
            detail=outlook.detail,
            unblocked_by=outlook.unblocked_by,
            position=outlook.position,
            jobs_ahead=outlook.jobs_ahead,
            tenants_ahead=outlook.tenants_ahead,
            starts_in=None if estimate is None else StartEstimate(p50=estimate[0], p90=estimate[1]),
        )
