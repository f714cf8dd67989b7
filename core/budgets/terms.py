"""On what terms a request's jobs are admitted: at their estimate, at a quote, or only to learn what they would cost.

All run in the request's transaction. The payer is the tenant, and the API key as well where it has a budget of its own.
"""

from __future__ import annotations

from dataclasses import dataclass

from sqlalchemy.ext.asyncio import AsyncSession

from core.budgets import budgets
from core.budgets.budgets import Standing, gpu_seconds
from core.budgets.quotes import QuoteUse
from core.budgets.statements import OPEN
from core.errors import BudgetExceeded, Limit, QueueFull
from core.jobs.models import Job


@dataclass(frozen=True)
class Terms:
    """What a job is estimated to cost is reserved, what it did cost is charged; by a quote, no more than it says."""

    max_jobs: int | None  # that have not ended, of one tenant
    quote: QuoteUse | None = None

    async def price(self, session: AsyncSession, estimate_ms: int) -> tuple[int, str | None]:
        """What to reserve for the request's next job, and the quote that says so; raises what `QuoteUse` raises."""
        return (estimate_ms, None) if self.quote is None else (await self.quote.next_amount(session), self.quote.id)

    async def admit(self, session: AsyncSession, job: Job) -> None:
        """Reserve a job's price. Holds the payer's lock until commit, so it comes last.

        Raises BudgetExceeded, unless the budget only warns: then the job says so. Raises QueueFull.
        """
        await session.execute(OPEN, {"job_id": job.id})
        for standing in await budgets.fold(session, job.tenant_id, job.api_key_id, reserved_ms=job.reserved_ms, jobs=1):
            if standing.api_key_id is None and self.max_jobs is not None and standing.jobs > self.max_jobs:
                message = f"{self.max_jobs} of your jobs wait or run, and no more may."
                raise QueueFull(message, limit=Limit("queue.jobs", self.max_jobs, 0))
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
        name = "budget.tenant" if standing.api_key_id is None else "budget.api_key"
        limit = Limit(name, gpu_seconds(standing.limit_ms or 0), gpu_seconds(left_ms))
        raise BudgetExceeded(message, limit=limit)
    job.warnings = [*job.warnings, {"code": "budget-exceeded", "message": message, "param": None}]


class Estimating(Terms):
    """No terms at all: whoever only wants to know makes jobs that nobody will ever see."""

    async def admit(self, session: AsyncSession, job: Job) -> None:
        """Reserve nothing."""
