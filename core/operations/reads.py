"""What operators see, each read bounded: pools as they stand, and the tenants in them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from sqlalchemy import Row
from sqlalchemy.ext.asyncio import AsyncSession

from core.errors import NotFound
from core.jobs.models import Worker
from core.operations import statements

_RECENT = timedelta(hours=1)
_MOST_RECENT = 2000
_MOST_QUEUED = 1000  # of one tenant, counted for a list of many


@dataclass(frozen=True)
class PoolView:
    """A pool, what ended in it last by priority, and what failed by code."""

    pool: Row[Any]
    recent: Sequence[Row[Any]]
    failures: Sequence[Row[Any]]


async def pools(session: AsyncSession) -> list[PoolView]:
    """Every pool."""
    found = (await session.execute(statements.POOLS, {"most": statements.MOST_COUNTED})).all()
    return [await _view(session, pool) for pool in found]


async def _view(session: AsyncSession, pool: Row[Any]) -> PoolView:
    values = {"pool": pool.name, "within": _RECENT, "most": _MOST_RECENT}
    recent = (await session.execute(statements.RECENT, values)).all()
    failures = (await session.execute(statements.FAILURES, values)).all()
    return PoolView(pool, recent, failures)


async def workers(
    session: AsyncSession, pool: str | None, *, after: str | None, limit: int
) -> tuple[list[Worker], bool]:
    """A page of workers that have not stopped, first to last started, and whether more follow."""
    rows = list(await session.scalars(statements.workers(pool, after=after or "", limit=limit + 1)))
    return rows[:limit], len(rows) > limit


async def tenants(session: AsyncSession, pool: str, *, after: str | None, limit: int) -> tuple[list[Row[Any]], bool]:
    """A page of tenants in a pool, and whether more follow; raises NotFound for a pool that is not there."""
    if (await session.execute(statements.POOL_NAMED, {"pool": pool})).one_or_none() is None:
        raise NotFound(f"No pool {pool!r}.", param="pool")
    values = {"pool": pool, "after": after or "", "limit": limit + 1, "most": _MOST_QUEUED}
    rows = list((await session.execute(statements.TENANTS, values)).all())
    return rows[:limit], len(rows) > limit
