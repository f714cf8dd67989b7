"""SQL of the event feed."""

from __future__ import annotations

from dataclasses import dataclass

from sqlalchemy import Select, Text, cast, func, select, tuple_

from core.db.types import Xid8
from core.jobs.models import Event


@dataclass(frozen=True)
class Cursor:
    """A place in the feed: the transaction that wrote an event, and its position within all events."""

    xid: str
    position: int


def cursor_of(event_id: str) -> Select[str, int]:
    """Where an event lies in the feed."""
    return select(cast(Event.xid, Text), Event.position).where(Event.id == event_id)


def feed_page(*, event_type: str | None, job_id: str | None, after: Cursor | None, limit: int) -> Select[Event]:
    """Events in the order of the feed, oldest first.

    An event is shown once every transaction that began before its own has ended: then nothing can still appear
    before it, so a reader that keeps the last id never misses one.
    """
    settled = func.pg_snapshot_xmin(func.pg_current_snapshot(), type_=Xid8())
    query = select(Event).where(Event.xid < settled)
    if event_type is not None:
        query = query.where(Event.type == event_type)
    if job_id is not None:
        query = query.where(Event.job_id == job_id)
    if after is not None:
        place = tuple_(cast(after.xid, Xid8), after.position)
        query = query.where(tuple_(Event.xid, Event.position) > place)
    return query.order_by(Event.xid, Event.position).limit(limit)
