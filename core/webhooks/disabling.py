"""Disabling endpoints: nothing is sent to them, and what is owed is held until they are enabled."""

from __future__ import annotations

from datetime import timedelta

from sqlalchemy.ext.asyncio import AsyncSession

from core.ids import new_id
from core.webhooks import statements
from core.webhooks.notices import DisabledReason, Notice


async def disable(
    session: AsyncSession, endpoint_id: str, reason: DisabledReason, *, failing_for: timedelta | None = None
) -> None:
    """Disable an endpoint, unless it is already; with ``failing_for`` only if it has failed for so long."""
    disabled = await session.execute(
        statements.DISABLE,
        {
            "endpoint_id": endpoint_id,
            "reason": reason,
            "failing_for": failing_for,
            "event_id": new_id("evt"),
            "type": Notice.DISABLED,
        },
    )
    if disabled.one_or_none() is not None:
        await session.execute(statements.HOLD, {"endpoint_id": endpoint_id, "ids": []})
