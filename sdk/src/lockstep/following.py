"""Following a job's events over a stream that may break: it is opened again after the last event that came."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator

import httpx

from lockstep import sse
from lockstep.errors import WaitTimedOut
from lockstep.models import Event
from lockstep.transport import Transport

_SILENCE = 45.0  # seconds without a byte, after which the stream counts as dead; the server pings more often


def follow(
    transport: Transport,
    path: str,
    *,
    after: str | None,
    timeout: float | None,
    has_ended: Callable[[], bool],
    clock: Callable[[], float] = time.monotonic,
) -> Iterator[Event]:
    """Yield a job's events up to the one that ends it, each once; ``has_ended`` asks whether that one is past.

    Raises:
        WaitTimedOut: when ``timeout`` seconds pass before the job ends.
        ConnectionFailed, LockstepAPIError: when the stream cannot be opened, after every retry.
    """
    deadline = None if timeout is None else clock() + timeout
    failures = 0
    while True:
        left = _SILENCE if deadline is None else min(_SILENCE, deadline - clock())
        if left <= 0:
            raise WaitTimedOut(f"{path}: not ended within {timeout:g} s")
        headers = {"Accept": "text/event-stream"} | ({"Last-Event-ID": after} if after is not None else {})
        try:
            with transport.stream(path, headers, read_timeout=left) as response:
                for sent in sse.parse(_until(deadline, response.iter_text(), clock)):
                    failures = 0
                    after = sent.id if sent.id is not None else after
                    event = Event.model_validate_json(sent.data)
                    yield event
                    if event.is_terminal:
                        return
            if has_ended():
                return
            raise httpx.RemoteProtocolError("the stream ended before the job did")
        except (httpx.TransportError, httpx.HTTPStatusError) as error:
            if deadline is None or clock() < deadline:
                failures += 1
                transport.pause_after(failures, error)


def _until(deadline: float | None, chunks: Iterator[str], clock: Callable[[], float]) -> Iterator[str]:
    """Pass chunks on (pings among them) until the deadline."""
    for chunk in chunks:
        yield chunk
        if deadline is not None and clock() >= deadline:
            return
