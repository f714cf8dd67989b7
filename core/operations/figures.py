"""The figures that metrics tell: what stands now, and what was counted since the beginning. Bounded reads."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Row
from sqlalchemy.ext.asyncio import AsyncSession

from core.operations import statements


@dataclass(frozen=True)
class Figures:
    """Rows of each kind, by pool where there is one."""

    pools: Sequence[Row[Any]]
    workers: Sequence[Row[Any]]
    vitals: Sequence[Row[Any]]
    tallies: Sequence[Row[Any]]
    waits: Sequence[Row[Any]]
    batches: Sequence[Row[Any]]
    calibrations: Sequence[Row[Any]]
    invariants: Sequence[Row[Any]]
    deliveries: Row[Any]


async def figures(session: AsyncSession) -> Figures:
    """Read them all, in one transaction's snapshots."""
    return Figures(
        pools=(await session.execute(statements.POOLS, {"most": statements.MOST_COUNTED})).all(),
        workers=(await session.execute(statements.WORKER_COUNTS)).all(),
        vitals=(await session.execute(statements.VITALS)).all(),
        tallies=(await session.execute(statements.TALLIES)).all(),
        waits=(await session.execute(statements.WAIT_TALLIES)).all(),
        batches=(await session.execute(statements.BATCH_TALLIES)).all(),
        calibrations=(await session.execute(statements.CALIBRATIONS)).all(),
        invariants=(await session.execute(statements.INVARIANTS)).all(),
        deliveries=(await session.execute(statements.DELIVERIES, {"most": statements.MOST_COUNTED})).one(),
    )
