"""Budgets, usage, quotes and limits on the wire. Amounts are GPU-seconds."""

from __future__ import annotations

from datetime import date
from typing import Annotated, Literal

from pydantic import Field

from api.schemas.common import Reference, RequestBody, Resource, Time
from api.schemas.distillations import CreateDistillation
from api.schemas.drawing import CreateGeneration, CreateSweep
from api.schemas.trainings import CreateTraining
from core.budgets import usage
from core.budgets.budgets import Period, Standing, gpu_seconds
from core.budgets.quotes import Quoted
from core.tenants.rates import RateStanding

Amount = Annotated[float, Field(ge=0, le=1e12)]
QuotedKind = Literal["training", "distillation", "generation", "sweep"]


class SetBudget(RequestBody):
    """What may be spent from now on."""

    api_key_id: Reference | None = Field(default=None, description="Of this API key; by default of the tenant.")
    limit: Amount | None = Field(description="GPU-seconds; null for no limit.")
    period: Period = Field(default="none", description="`month`: what was spent counts anew each month (UTC).")
    hard: bool = Field(
        default=True, description="Whether jobs that do not fit are refused; otherwise they carry a warning."
    )


class Budget(Resource):
    """What may be spent, and what is left of it."""

    object: Literal["budget"] = "budget"
    api_key_id: str | None = Field(description="Null: the tenant's own, which pays for every job.")
    limit: float | None
    period: Period
    period_start: Time | None
    hard: bool
    spent: float = Field(description="Charged in the period.")
    reserved: float = Field(description="Held back for jobs that have not ended.")
    left: float | None = Field(description="What jobs may still reserve; null where there is no limit.")

    @classmethod
    def of(cls, standing: Standing) -> Budget:
        """The budget as it is shown."""
        left_ms = standing.left_ms
        return cls(
            api_key_id=standing.api_key_id,
            limit=None if standing.limit_ms is None else gpu_seconds(standing.limit_ms),
            period=standing.period,
            period_start=standing.window_start,
            hard=standing.hard,
            spent=gpu_seconds(standing.spent_ms),
            reserved=gpu_seconds(standing.reserved_ms),
            left=None if left_ms is None else gpu_seconds(max(0, left_ms)),
        )


class Used(Resource):
    """Jobs that ended, and what was charged for them."""

    day: date | None = Field(default=None, description="In UTC.")
    kind: str | None = None
    model: str | None = Field(default=None, description="The model's id.")
    api_key: str | None = Field(default=None, description="The key's id.")
    jobs: int
    gpu_seconds: float

    @classmethod
    def of(cls, row: usage.UsageRow) -> Used:
        """The group as it is shown."""
        return cls.model_validate({**row.group, "jobs": row.jobs, "gpu_seconds": gpu_seconds(row.charged_ms)})


class Usage(Resource):
    """What was used on some days."""

    object: Literal["usage"] = "usage"
    from_: date = Field(alias="from")
    to: date = Field(description="The last day, included.")
    group_by: list[usage.Grouping]
    data: list[Used]
    has_more: bool = Field(description="Whether there are more groups than are told; `total` has them all.")
    total: Used

    @classmethod
    def of(cls, used: usage.Usage, group_by: list[usage.Grouping]) -> Usage:
        """The answer as it is shown."""
        members = {"from": used.first, "to": used.last, "group_by": group_by, "has_more": used.is_cut}
        rows = {"data": [Used.of(row) for row in used.rows], "total": Used.of(used.total)}
        return cls.model_validate(members | rows)


class QuoteTraining(RequestBody):
    """A training to be quoted."""

    kind: Literal["training"]
    request: CreateTraining


class QuoteDistillation(RequestBody):
    """A distillation to be quoted, with the jobs that draw its pairs."""

    kind: Literal["distillation"]
    request: CreateDistillation


class QuoteGeneration(RequestBody):
    """A generation to be quoted."""

    kind: Literal["generation"]
    request: CreateGeneration


class QuoteSweep(RequestBody):
    """A sweep to be quoted."""

    kind: Literal["sweep"]
    request: CreateSweep


AskQuote = Annotated[QuoteTraining | QuoteDistillation | QuoteGeneration | QuoteSweep, Field(discriminator="kind")]


class Quote(Resource):
    """The most that a request will cost."""

    object: Literal["quote"] = "quote"
    id: str = Field(examples=["quo_01kaj0c5pmq2v8y4dn6rx3zwte"], description="Send it as the request's `quote`.")
    kind: QuotedKind
    gpu_seconds: float
    created_at: Time
    expires_at: Time

    @classmethod
    def of(cls, quoted: Quoted, kind: QuotedKind) -> Quote:
        """The quote as it is shown."""
        return cls(
            id=quoted.id,
            kind=kind,
            gpu_seconds=gpu_seconds(quoted.amount_ms),
            created_at=quoted.created_at,
            expires_at=quoted.expires_at,
        )


class Rate(Resource):
    """How many requests a minute are served, over all keys."""

    name: str = Field(description="`jobs`: requests that make jobs; `requests`: all others.")
    limit: int
    window_seconds: int
    left: int

    @classmethod
    def of(cls, standing: RateStanding) -> Rate:
        """The rate limit as it is shown."""
        policy = standing.policy
        window = int(policy.period.total_seconds())
        return cls(name=policy.name, limit=policy.quota, window_seconds=window, left=standing.left)


class Cap(Resource):
    """The most of something that there may be at once."""

    limit: int | None = Field(description="Null: as much as you like.")
    used: int


class Limits(Resource):
    """What holds for this API key."""

    object: Literal["limits"] = "limits"
    rates: list[Rate]
    jobs: Cap = Field(description="Jobs that wait or run.")
    tenant_max_running: int = Field(description="Jobs that run at once.")
    stored_bytes: Cap = Field(description="Bytes of all files.")
    open_uploads: Cap = Field(description="Uploads that were announced, and are not completed.")
    max_upload_bytes: int
    max_picture_pixels: int
    max_training_pictures: int
    budgets: list[Budget] = Field(description="The tenant's, and this key's if it has one.")
