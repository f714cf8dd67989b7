"""What a tenant and its keys may spend, and what is left of it: in the caller's transaction."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from functools import partial
from typing import Any, Literal

from sqlalchemy.ext.asyncio import AsyncSession

from core.budgets import statements
from core.errors import Limit, NotFound, StorageFull
from core.operations import audit
from core.operations.audit import Actor

Period = Literal["none", "month"]

MOST_SHOWN = 1000


@dataclass(frozen=True)
class Standing:
    """How a budget stands, with everything counted that was reserved, charged and stored by now."""

    api_key_id: str | None  # none: the tenant's own
    limit_ms: int | None
    period: Period
    hard: bool
    window_start: datetime | None
    spent_ms: int  # in the period
    reserved_ms: int
    jobs: int
    stored_bytes: int

    @property
    def left_ms(self) -> int | None:
        """What may still be reserved; below zero once jobs cost more than was reserved for them. None: no limit."""
        return None if self.limit_ms is None else self.limit_ms - self.spent_ms - self.reserved_ms

    def terms(self) -> dict[str, Any]:
        """What was set, for the audit log."""
        return {"limit_ms": self.limit_ms, "period": self.period, "hard": self.hard}


def gpu_seconds(milliseconds: int) -> float:
    """As the API tells it."""
    return milliseconds / 1000


async def fold(
    session: AsyncSession, tenant_id: str, api_key_id: str | None = None, *, reserved_ms: int = 0, jobs: int = 0
) -> list[Standing]:
    """Count what has happened since the last look, and reserve; returns the standings of tenant and key by then.

    Holds the payer's lock until commit.
    """
    await session.execute(statements.LOCK_PAYER, {"tenant_id": tenant_id})
    asked = {"tenant_id": tenant_id, "api_key_id": api_key_id, "reserved_ms": reserved_ms, "jobs": jobs}
    rows = (await session.execute(statements.RESERVE, asked)).all()
    standings = [Standing(**row._mapping) for row in rows if row.api_key_id in (None, api_key_id)]
    return sorted(standings, key=lambda standing: standing.api_key_id is not None)


async def hold_room(session: AsyncSession, tenant_id: str, max_stored_bytes: int) -> None:
    """Let files be kept that the transaction has just written; raises StorageFull when all are more than allowed.

    Holds the payer's lock until commit, so it comes last.
    """
    tenant, *_ = await fold(session, tenant_id)
    if tenant.stored_bytes > max_stored_bytes:
        message = f"Your files would take {tenant.stored_bytes} bytes; {max_stored_bytes} are allowed. Delete some."
        raise StorageFull(message, param="file", limit=Limit("storage.bytes", max_stored_bytes, 0))


async def standings(session: AsyncSession, tenant_id: str, api_key_id: str | None = None) -> list[Standing]:
    """The tenant's budget, then those of its keys that have a limit, and that of ``api_key_id`` in any case."""
    await fold(session, tenant_id, api_key_id)
    values = {"tenant_id": tenant_id, "api_key_id": api_key_id, "limit": MOST_SHOWN}
    return [Standing(**row._mapping) for row in (await session.execute(statements.STANDINGS, values)).all()]


async def set_limit(
    session: AsyncSession,
    tenant_id: str,
    api_key_id: str | None,
    *,
    limit_ms: int | None,
    period: Period,
    hard: bool,
    actor: Actor,
) -> Standing:
    """Set what the tenant, or one of its keys, may spend from now on; what goes on counts. Raises NotFound."""
    if api_key_id is not None and await session.scalar(statements.KEY_EXISTS, {"api_key_id": api_key_id}) is None:
        raise NotFound(f"No API key {api_key_id}.", param="api_key_id")
    *_, old = await fold(session, tenant_id, api_key_id)
    values = {"tenant_id": tenant_id, "api_key_id": api_key_id, "limit_ms": limit_ms, "period": period, "hard": hard}
    new = Standing(**(await session.execute(statements.SET_LIMIT, values)).one()._mapping)
    noting = partial(audit.note, tenant_id=tenant_id, before=old.terms(), after=new.terms())
    await session.run_sync(noting, actor, "budget.changed", api_key_id or tenant_id)
    return new
