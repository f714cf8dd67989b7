"""`/v1/events`: everything that happened, for whoever may have missed a webhook."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query

from api.dependencies import Reader, TenantSession
from api.pagination import Limit, list_of
from api.schemas.common import ListOf
from api.schemas.events import Event
from core.events.feed import read_feed

router = APIRouter(prefix="/v1/events", tags=["Events"])


@router.get("")
async def list_events(
    _: Reader,
    session: TenantSession,
    after: Annotated[str | None, Query(description="Only what happened after the event of this id.")] = None,
    event_type: Annotated[str | None, Query(alias="type", description="Only events of this type.")] = None,
    job: Annotated[str | None, Query(description="Only events of the job of this id.")] = None,
    limit: Limit = 20,
) -> ListOf[Event]:
    """List events, oldest first, with the ids and bodies that webhooks have.

    Keep `last_id` and pass it as `after`: no event is ever missed, and none comes twice.
    """
    found = await read_feed(session, event_type=event_type, job_id=job, after=after, limit=limit)
    return list_of(found, Event.of)
