"""On what terms a request's jobs are admitted: at their estimate, at a quote, or only to learn what they would cost.

All run in the request's transaction. The payer is the tenant, and the API key as well where it has a budget of its own.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from sqlalchemy.ext.asyncio import AsyncSession

from core.budgets import budgets, quotes
from core.budgets.budgets import Standing, gpu_seconds
from core.budgets.statements import OPEN
from core.errors import BudgetExceeded, QueueFull
from core.jobs.models import Job


@dataclass
class Terms:
    """The ordinary terms: what a job is estimated to cost is reserved, what it did cost is charged."""

    max_jobs: int | None = None  # that have not ended, of one tenant

    async def price(self, session: AsyncSession, estimate_ms: int) -> tuple[int, str | None]:
        """What to reserve for the request's next job, and the quote that this is the most of."""
        return estimate_ms, None

    async def admit(self, session: AsyncSession, job: Job) -> None:
        """Reserve a job's price. Holds the payer's lock until commit, so it comes last.

        Raises BudgetExceeded, unless the budget only warns: then the job says so. Raises QueueFull.
        """
        await session.execute(OPEN, {"job_id": job.id})
        for standing in await budgets.fold(
            session, job.tenant_id, job.api_key_id, reserved_ms=job.reserved_ms, jobs=1
        ):
            if standing.api_key_id is None and self.max_jobs is not None and standing.jobs > self.max_jobs:
                raise QueueFull(
                    f"{self.max_jobs} of your jobs wait or run, and no more may.", limit="jobs", value=self.max_jobs, left=0
                )
            if standing.left_ms is not None and standing.left_ms < 0:
                _refuse_or_warn(job, standing)


def _refuse_or_warn(job: Job, standing: Standing) -> None:
    left_ms = max(0, (standing.left_ms or 0) + job.reserved_ms)
    owner = "your" if standing.api_key_id is None else "this API key's"
    message = (
        f"This would reserve {gpu_seconds(job.reserved_ms)} GPU-seconds; "
        f"{gpu_seconds(left_ms)} of {owner} budget are left."
    )
    if standing.hard:
        scope = "tenant" if standing.api_key_id is None else "api_key"
        value = gpu_seconds(standing.limit_ms or 0)
        raise BudgetExceeded(message, limit=f"{scope}.gpu_seconds", value=value, left=gpu_seconds(left_ms))
    job.warnings = [*job.warnings, {"code": "budget-exceeded", "message": message, "param": None}]


@dataclass
class QuotedTerms(Terms):
    """A quote's terms: what it said is reserved, and no more is charged."""

    quote_id: str = ""
    request_sha256: str = ""
    _amounts: Iterator[int] | None = field(default=None, init=False)

    async def price(self, session: AsyncSession, estimate_ms: int) -> tuple[int, str | None]:
        """As `Terms` has it; raises what ``quotes.redeem`` raises."""
        if self._amounts is None:
            self._amounts = iter(await quotes.redeem(session, self.quote_id, self.request_sha256))
        amount = next(self._amounts, None)
        if amount is None:  # the model was registered anew meanwhile, and the request makes more jobs
            raise quotes.mismatch(self.quote_id)
        return amount, self.quote_id


class Estimating(Terms):
    """No terms at all: whoever only wants to know makes jobs that nobody will ever see."""

    async def admit(self, session: AsyncSession, job: Job) -> None:
        """Reserve nothing."""
