"""Quotes: what a request would reserve, promised as the most that it will cost if it comes in time."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from sqlalchemy.ext.asyncio import AsyncSession

from core.budgets import statements
from core.errors import NotFound, QuoteExpired, QuoteMismatch, QuoteUsed
from core.ids import new_id
from core.jobs.models import Job


@dataclass(frozen=True)
class Quoted:
    """A quote as it was given."""

    id: str
    amount_ms: int
    expires_at: datetime
    created_at: datetime


async def give(
    session: AsyncSession,
    tenant_id: str,
    request_sha256: str,
    accept: Callable[[AsyncSession], Awaitable[Job]],
    *,
    lifetime: timedelta,
) -> Quoted:
    """What the jobs would reserve that ``accept`` makes on the terms `Estimating`; they are undone.

    Raises what ``accept`` raises: a request that is refused has no price.
    """
    async with session.begin_nested() as savepoint:
        job = await accept(session)
        amounts = list(await session.scalars(statements.AMOUNTS, {"job_id": job.id}))
        await savepoint.rollback()
    quote_id = new_id("quo")
    values = {
        "id": quote_id,
        "tenant_id": tenant_id,
        "request_sha256": request_sha256,
        "amounts_ms": amounts,
        "lifetime": lifetime,
    }
    row = (await session.execute(statements.QUOTE, values)).one()
    return Quoted(quote_id, sum(amounts), row.expires_at, row.created_at)


@dataclass
class QuoteUse:
    """A quote as one request uses it."""

    id: str
    request_sha256: str
    _amounts: Iterator[int] | None = field(default=None, init=False)

    async def next_amount(self, session: AsyncSession) -> int:
        """What it says of the request's next job; the first look uses it up.

        Raises NotFound, QuoteMismatch, QuoteUsed and QuoteExpired.
        """
        if self._amounts is None:
            self._amounts = iter(await self._redeem(session))
        amount = next(self._amounts, None)
        if amount is None:  # the model was registered anew meanwhile, and the request makes more jobs
            raise self._mismatch()
        return amount

    async def _redeem(self, session: AsyncSession) -> Sequence[int]:
        quote = (await session.execute(statements.HOLD_QUOTE, {"id": self.id})).one_or_none()
        if quote is None:
            raise NotFound(f"No quote {self.id}.", param="quote")
        if quote.request_sha256 != self.request_sha256:
            raise self._mismatch()
        if quote.used:
            raise QuoteUsed(f"The quote {self.id} was used already.", param="quote")
        if quote.expired:
            raise QuoteExpired(f"The quote {self.id} holds no more: ask for another one.", param="quote")
        await session.execute(statements.USE_QUOTE, {"id": self.id})
        amounts: Sequence[int] = quote.amounts_ms
        return amounts

    def _mismatch(self) -> QuoteMismatch:
        return QuoteMismatch(f"The quote {self.id} was given for another request.", param="quote")
