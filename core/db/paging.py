"""Keyset pages, newest first: a page is found by the (created_at, id) of the row beside it, never by counting."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Generic, Protocol, TypeVar

from sqlalchemy import ColumnElement, Select, tuple_
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import InstrumentedAttribute

from core.errors import NotFound

Place = tuple[datetime, str]


class Paged(Protocol):
    """A row that lies in such an order."""

    @property
    def id(self) -> Any:
        """What a page is gone on from by."""

    @property
    def created_at(self) -> Any:
        """Where it lies."""


P = TypeVar("P", bound=Paged)
P_co = TypeVar("P_co", bound=Paged, covariant=True)


@dataclass(frozen=True)
class Page(Generic[P]):
    """Some rows, and whether more lie beyond them in the direction that was asked for."""

    rows: list[P]
    has_more: bool


class PageStatement(Protocol[P_co]):
    """Builds the statement of one page."""

    def __call__(self, *, after: Place | None, before: Place | None, limit: int) -> Select[P_co]:
        """The rows after (older than) or before (newer than) a place, nearest first."""


def nearest_first(
    query: Select[P],
    created_at: InstrumentedAttribute[datetime],
    row_id: InstrumentedAttribute[str],
    *,
    after: Place | None,
    before: Place | None,
    limit: int,
) -> Select[P]:
    """Narrow ``query`` to the ``limit`` rows nearest to a place: older than ``after``, or newer than ``before``."""
    place: ColumnElement[Any] = tuple_(created_at, row_id)
    if before is not None:
        return query.where(place > before).order_by(created_at, row_id).limit(limit)
    if after is not None:
        query = query.where(place < after)
    return query.order_by(created_at.desc(), row_id.desc()).limit(limit)


async def read_page(
    session: AsyncSession,
    rows: PageStatement[P],
    *,
    by_id: Callable[[str], Select[P]],
    after: str | None,
    before: str | None,
    limit: int,
) -> Page[P]:
    """One page, newest first; ``after`` and ``before`` are ids. Raises NotFound when the row of an id is gone."""
    found = list(
        await session.scalars(
            rows(
                after=await _place(session, by_id, after, "after"),
                before=await _place(session, by_id, before, "before"),
                limit=limit + 1,  # one more than is shown tells whether more follow
            )
        )
    )
    shown = found[:limit]
    if before is not None:
        shown.reverse()
    return Page(shown, has_more=len(found) > limit)


async def _place(
    session: AsyncSession, by_id: Callable[[str], Select[P]], row_id: str | None, param: str
) -> Place | None:
    if row_id is None:
        return None
    row = await session.scalar(by_id(row_id))
    if row is None:
        raise NotFound(f"No {row_id} to page from.", param=param)
    return row.created_at, row.id
