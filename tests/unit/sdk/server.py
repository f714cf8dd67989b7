"""A scripted server under the SDK: answers in order, and remembers what it was asked."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator

import httpx

from lockstep.retry import RetryPolicy
from lockstep.transport import Transport

Answer = httpx.Response | httpx.TransportError


class ScriptedServer:
    """Gives one answer to each request, errors by raising them; ``pauses`` are the sleeps between the tries."""

    def __init__(self, *answers: Answer) -> None:
        self._answers: Iterator[Answer] = iter(answers)
        self.requests: list[httpx.Request] = []
        self.pauses: list[float] = []

    def transport(self) -> Transport:
        http = httpx.Client(base_url="http://server", transport=httpx.MockTransport(self._answer))
        return Transport(http, RetryPolicy(retries=3), sleep=self.pauses.append, random=lambda: 1.0)

    def _answer(self, request: httpx.Request) -> httpx.Response:
        self.requests.append(request)
        answer = next(self._answers)
        if isinstance(answer, httpx.TransportError):
            raise answer
        return answer

    def header(self, name: str) -> list[str | None]:
        """A header of every request that came."""
        return [request.headers.get(name) for request in self.requests]


class Broken(httpx.SyncByteStream):
    """A body that breaks off after its chunks."""

    def __init__(self, *chunks: str) -> None:
        self._chunks = chunks

    def __iter__(self) -> Iterator[bytes]:
        yield from (chunk.encode() for chunk in self._chunks)
        raise httpx.ReadError("connection reset")


def event_text(number: int, kind: str = "training.progress") -> str:
    """One event as it stands on a stream."""
    event = {"id": f"evt_{number}", "type": kind, "created_at": 1767225600, "sequence": number, "data": {}}
    return f"id: evt_{number}\nevent: {kind}\ndata: {json.dumps(event)}\n\n"


def stream(*texts: str) -> httpx.Response:
    return httpx.Response(200, text="".join(texts), headers={"content-type": "text/event-stream"})


def broken_stream(*texts: str) -> httpx.Response:
    return httpx.Response(200, stream=Broken(*texts), headers={"content-type": "text/event-stream"})


def ticking(times: Iterable[float]) -> Callable[[], float]:
    clock = iter(times)
    return lambda: next(clock)
