"""A job's events as server-sent events (WHATWG HTML, section 9.2)."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Sequence
from datetime import timedelta

from fastapi.responses import StreamingResponse
from fastapi.sse import KEEPALIVE_COMMENT, format_sse_event

from api.standing import Standing
from core.jobs.models import Event
from core.webhooks.envelope import event_body

LONGEST_REST = timedelta(milliseconds=300)
_PING_AFTER = timedelta(seconds=15)  # well under the minute after which proxies drop a silent connection


def stream(looks: AsyncIterator[Sequence[Event]], standing: Standing) -> StreamingResponse:
    """The events of each look; ``id`` is the event's sequence, from which a client goes on after a break.

    Ends early when the caller may not ask any more, which a client that connects again is told.
    """
    headers = {
        "Content-Type": "text/event-stream",  # in full: some clients refuse it with a charset
        "Cache-Control": "no-cache",
        "X-Accel-Buffering": "no",
    }
    return StreamingResponse(_told(looks, standing, pings_every=_PING_AFTER // LONGEST_REST), headers=headers)


async def _told(looks: AsyncIterator[Sequence[Event]], standing: Standing, *, pings_every: int) -> AsyncIterator[bytes]:
    """Events as they are sent; a ping, which has no id, after so many looks that found nothing."""
    silent = 0
    async for events in looks:
        if not await standing.holds():
            return
        silent = 0 if events else silent + 1
        for event in events:
            body = json.dumps(event_body(event), ensure_ascii=False, separators=(",", ":"))
            yield format_sse_event(data_str=body, event=event.type, id=str(event.sequence))
        if silent == pings_every:
            silent = 0
            yield KEEPALIVE_COMMENT


def sequence_after(last_event_id: str | None, job_id: str) -> int:
    """Where to go on: after a sequence, or after an event's id, which ends in it; from the start if it is neither."""
    given = (last_event_id or "").removeprefix(f"evt_{job_id.removeprefix('job_')}")
    return int(given) if given.isdecimal() and len(given) < 18 else 0
