"""What was charged, and for what: read from the ledger."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from typing import Final, Literal

from sqlalchemy.ext.asyncio import AsyncSession

from core.budgets import statements
from core.errors import Invalid

Grouping = Literal["day", "kind", "model", "api_key"]

MOST_DAYS: Final = 92
MOST_ROWS: Final = 1000
_USUAL_DAYS: Final = 30


@dataclass(frozen=True)
class UsageRow:
    """Jobs that ended, and what was charged for them; of a group where ``group`` says of which."""

    group: dict[Grouping, str | None]
    jobs: int
    charged_ms: int


@dataclass(frozen=True)
class Usage:
    """What was used on some days, the last one included."""

    first: date
    last: date
    rows: list[UsageRow]
    is_cut: bool  # more groups than are told
    total: UsageRow


def _days(first: date | None, last: date | None, today: date) -> tuple[date, date]:
    last = last or today
    first = first or last - timedelta(days=_USUAL_DAYS - 1)
    if first > last:
        raise Invalid("The first day comes after the last.", param="from")
    if (last - first).days >= MOST_DAYS:
        raise Invalid(f"At most {MOST_DAYS} days can be asked for at once.", param="from")
    return first, last


async def usage(session: AsyncSession, first: date | None, last: date | None, by: Sequence[Grouping]) -> Usage:
    """What the session's tenant used on these days (UTC; by default the last 30), in groups. Raises Invalid."""
    first, last = _days(first, last, (await session.execute(statements.TODAY)).scalar_one())
    since = datetime.combine(first, time(), tzinfo=UTC)
    until = datetime.combine(last, time(), tzinfo=UTC) + timedelta(days=1)
    found = (await session.execute(statements.usage(since=since, until=until, by=by, limit=MOST_ROWS + 1))).all()
    rows = [UsageRow({name: row._mapping[name] for name in by}, row.jobs, row.ms) for row in found] if by else []
    whole = (await session.execute(statements.usage(since=since, until=until, by=(), limit=1))).one()
    return Usage(first, last, rows[:MOST_ROWS], len(rows) > MOST_ROWS, UsageRow({}, whole.jobs, whole.ms))
