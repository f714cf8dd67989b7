"""What a tenant may do at a time, as it stands now."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import timedelta

from sqlalchemy.ext.asyncio import AsyncSession

from core.tenants import statements
from core.tenants.rates import RatePolicy, RateStanding


async def rates(session: AsyncSession, tenant_id: str, policies: Iterable[RatePolicy]) -> list[RateStanding]:
    """How the tenant's buckets stand, of the policies that limit anything."""
    rows = await session.execute(statements.RATES, {"tenant_id": tenant_id})
    full_in = {row.policy: row.full_in for row in rows}
    return [
        RateStanding(policy, taken=False, full_in=full_in.get(policy.name, timedelta(0)))
        for policy in policies
        if policy.quota
    ]


async def max_running(session: AsyncSession, tenant_id: str, pool: str) -> int | None:
    """Most jobs of the tenant that run in a pool at once; None before its first job there."""
    most: int | None = await session.scalar(statements.MAX_RUNNING, {"tenant_id": tenant_id, "pool": pool})
    return most
