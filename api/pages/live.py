"""Parts of pages that follow what Postgres says: rendered again and again, sent when they have changed."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from itertools import repeat
from typing import Any, Final

import anyio
from fastapi import Request
from fastapi.responses import StreamingResponse
from fastapi.sse import KEEPALIVE_COMMENT, format_sse_event

from api.pages.rendering import rendered
from api.standing import standing_of

EVENT: Final = "changed"
OVER: Final = "over"  # nothing more will change
_STEADY: Final = repeat(1.0)  # second
_PING_AFTER: Final = 15.0  # seconds of silence, after which proxies may think that nobody is there
_HEADERS: Final = {"Content-Type": "text/event-stream", "Cache-Control": "no-cache", "X-Accel-Buffering": "no"}


Read = Callable[[], Awaitable[dict[str, Any]]]
"""Looks up what a part shows, in a transaction of its own; `is_over` among it says that nothing more will change."""


def live(request: Request, template: str, read: Read, *, rests: Iterator[float] = _STEADY) -> StreamingResponse:
    """Stream a part of a page, for as long as whoever asked for it may see it, with so many seconds between looks."""
    return StreamingResponse(_parts(request, template, read, rests), headers=_HEADERS)


async def _parts(request: Request, template: str, read: Read, rests: Iterator[float]) -> AsyncIterator[bytes]:
    standing = standing_of(request)
    last, spoke = "", time.monotonic()
    while await standing.holds():
        values = await read()
        part = rendered(request, template, **values)
        if part != last:
            last, spoke = part, time.monotonic()
            yield format_sse_event(data_str=part, event=EVENT)
        elif time.monotonic() - spoke > _PING_AFTER:
            spoke = time.monotonic()
            yield KEEPALIVE_COMMENT
        if values.get("is_over"):
            yield format_sse_event(data_str=OVER, event=OVER)
            return
        await anyio.sleep(next(rests))
