"""Quotes: what a request would reserve, promised as the most that it will cost if it comes in time."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
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
    values = {"id": quote_id, "tenant_id": tenant_id, "request_sha256": request_sha256}
    values |= {"amounts_ms": amounts, "lifetime": lifetime}
    row = (await session.execute(statements.QUOTE, values)).one()
    return Quoted(quote_id, sum(amounts), row.expires_at, row.created_at)


async def redeem(session: AsyncSession, quote_id: str, request_sha256: str) -> Sequence[int]:
    """What the quote says of each job of the request, which uses it up; raises NotFound and what speaks against it."""
    quote = (await session.execute(statements.HOLD_QUOTE, {"id": quote_id})).one_or_none()
    if quote is None:
        raise NotFound(f"No quote {quote_id}.", param="quote")
    if quote.request_sha256 != request_sha256:
        raise mismatch(quote_id)
    if quote.used:
        raise QuoteUsed(f"The quote {quote_id} was used already.", param="quote")
    if quote.expired:
        raise QuoteExpired(f"The quote {quote_id} holds no more: ask for another one.", param="quote")
    await session.execute(statements.USE_QUOTE, {"id": quote_id})
    amounts: Sequence[int] = quote.amounts_ms
    return amounts


def mismatch(quote_id: str) -> QuoteMismatch:
    """The quote is another request's."""
    return QuoteMismatch(f"The quote {quote_id} was given for another request.", param="quote")
