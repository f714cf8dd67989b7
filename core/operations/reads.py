"""What operators see, each read bounded: pools as they stand, and the tenants in them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from sqlalchemy import Row
from sqlalchemy.ext.asyncio import AsyncSession

from core.errors import NotFound
from core.jobs.models import Job, JobAttempt, Worker
from core.jobs.outlook import Outlook, outlook
from core.jobs.reading import get_attempts, get_job
from core.operations import statements

_RECENT = timedelta(hours=1)
_MOST_RECENT = 2000
_MOST_TOLD = 200  # events, and deliveries, of one job
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


async def pool(session: AsyncSession, name: str) -> PoolView:
    """One pool; raises NotFound."""
    for view in await pools(session):
        if view.pool.name == name:
            return view
    raise NotFound(f"No pool {name!r}.", param="pool")


async def lanes(session: AsyncSession, pool: str) -> Sequence[Row[Any]]:
    """What waits and runs in each lane of a pool."""
    return (await session.execute(statements.LANES, {"pool": pool, "most": statements.MOST_COUNTED})).all()


async def tenant_in_pool(session: AsyncSession, pool: str, tenant_id: str) -> Row[Any]:
    """A tenant's weight, cap and pause in a pool; raises NotFound."""
    values = {"pool": pool, "tenant_id": tenant_id}
    row = (await session.execute(statements.TENANT_OF_POOL, values)).one_or_none()
    if row is None:
        raise NotFound(f"No {tenant_id} in {pool!r}.")
    return row


@dataclass(frozen=True)
class TenantView:
    """A tenant, and how it stands in each pool."""

    tenant: Row[Any]
    pools: Sequence[Row[Any]]


async def tenant(session: AsyncSession, tenant_id: str) -> TenantView:
    """One tenant; raises NotFound."""
    row = (await session.execute(statements.TENANT, {"tenant_id": tenant_id})).one_or_none()
    if row is None:
        raise NotFound(f"No tenant {tenant_id}.", param="tenant_id")
    values = {"tenant_id": tenant_id, "most": _MOST_QUEUED}
    return TenantView(row, (await session.execute(statements.POOLS_OF_TENANT, values)).all())


async def every_tenant(session: AsyncSession, *, after: str | None, limit: int) -> tuple[list[Row[Any]], bool]:
    """A page of tenants, the oldest first, and whether more follow."""
    values = {"after": after or "", "limit": limit + 1}
    return _cut(list((await session.execute(statements.TENANTS_PAGE, values)).all()), limit)


async def ledger(
    session: AsyncSession, tenant_id: str, *, after: int | None, limit: int
) -> tuple[list[Row[Any]], bool]:
    """A page of what was reserved and charged for a tenant, the latest first, and whether more follow."""
    values = {"tenant_id": tenant_id, "after": after, "limit": limit + 1}
    return _cut(list((await session.execute(statements.LEDGER, values)).all()), limit)


async def endpoints(
    session: AsyncSession, tenant_id: str | None, *, after: str | None, limit: int
) -> tuple[list[Row[Any]], bool]:
    """A page of webhook endpoints: a tenant's, or else those of anybody that fail or are disabled."""
    values: dict[str, Any] = {"after": after or "", "limit": limit + 1, "most": statements.MOST_COUNTED}
    statement = statements.ENDPOINTS_IN_TROUBLE
    if tenant_id is not None:
        statement, values = statements.ENDPOINTS_OF_TENANT, values | {"tenant_id": tenant_id}
    return _cut(list((await session.execute(statement, values)).all()), limit)


def _cut(rows: list[Row[Any]], limit: int) -> tuple[list[Row[Any]], bool]:
    return rows[:limit], len(rows) > limit


async def tenant_of_job(session: AsyncSession, job_id: str) -> str:
    """Whose job it is; raises NotFound."""
    row = (await session.execute(statements.JOB, {"job_id": job_id})).one_or_none()
    if row is None:
        raise NotFound(f"No job {job_id}.", param="job_id")
    return str(row.tenant_id)


async def models(session: AsyncSession) -> Sequence[Row[Any]]:
    """Every model, by name."""
    return (await session.execute(statements.MODELS)).all()


@dataclass(frozen=True)
class JobLife:
    """Everything that is known of a job: why it waits, what was tried, what happened and who was told."""

    job: Job
    outlook: Outlook
    attempts: Sequence[JobAttempt]
    events: Sequence[Row[Any]]  # the latest first
    deliveries: Sequence[Row[Any]]


async def job_life(session: AsyncSession, job_id: str) -> JobLife:
    """A job of any tenant; raises NotFound."""
    job = await get_job(session, job_id)
    await session.execute(statements.LOOK_AS, {"tenant_id": job.tenant_id})  # the outlook is told to tenants
    values = {"job_id": job_id, "limit": _MOST_TOLD}
    return JobLife(
        job,
        await outlook(session, job),
        await get_attempts(session, job_id),
        (await session.execute(statements.EVENTS_OF_JOB, values)).all(),
        (await session.execute(statements.DELIVERIES_OF_JOB, values)).all(),
    )


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
    return _cut(list((await session.execute(statements.TENANTS, values)).all()), limit)
