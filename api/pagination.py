"""Pages of lists: `after` and `before` are ids, as in the last answer's `last_id` and `first_id`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Any, TypeVar

from fastapi import Depends, Query

from api.schemas.common import ListOf, Resource
from core.db.paging import Page, Paged
from core.errors import Invalid

P = TypeVar("P", bound=Paged)
R = TypeVar("R", bound=Resource)

Limit = Annotated[int, Query(ge=1, le=100, description="How many at most.")]


@dataclass(frozen=True)
class PageRequest:
    """Which page of a list is wanted."""

    after: str | None
    before: str | None
    limit: int


def _page_request(
    after: Annotated[str | None, Query(description="Only what follows this id: what is older.")] = None,
    before: Annotated[str | None, Query(description="Only what precedes this id: what is newer.")] = None,
    limit: Limit = 20,
) -> PageRequest:
    if after is not None and before is not None:
        raise Invalid("Give either after or before.", param="before")
    return PageRequest(after, before, limit)


WantedPage = Annotated[PageRequest, Depends(_page_request)]


def list_of(page: Page[P], shown: Callable[[P], R]) -> ListOf[R]:
    """A page as it is shown."""
    ids: list[Any] = [row.id for row in page.rows]
    return ListOf(
        data=[shown(row) for row in page.rows],
        has_more=page.has_more,
        first_id=ids[0] if ids else None,
        last_id=ids[-1] if ids else None,
    )
