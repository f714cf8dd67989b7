"""A webhook receiver of the tests' own: it keeps every request, and answers as it is told."""

from __future__ import annotations

import asyncio
import itertools
import ssl
import time
from collections import defaultdict, deque
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from standardwebhooks import Webhook

HANG = b""  # an answer that never comes
_BETWEEN_BYTES = 0.02  # seconds


@dataclass(frozen=True)
class Request:
    """One request as it arrived."""

    path: str
    headers: dict[str, str]
    body: bytes
    at: float = field(default_factory=time.monotonic)

    @property
    def id(self) -> str:
        """The id by which receivers tell repetitions."""
        return self.headers["webhook-id"]

    def verified(self, secret: str) -> Any:
        """The body, once the library that receivers use has checked its signature."""
        return Webhook(secret).verify(self.body, self.headers)


def answer(status: int, *headers: str, body: bytes = b"") -> bytes:
    """An HTTP answer."""
    lines = [f"HTTP/1.1 {status} Said", f"content-length: {len(body)}", *headers, "", ""]
    return "\r\n".join(lines).encode() + body


class Drip(bytes):
    """An answer that comes one byte at a time, but for a head that is whole, and never ends."""


class Receiver:
    """Answers 204 to everything, or the next of ``answers[path]`` (the last one again and again).

    ``heed`` is called with each request before it is answered: whoever sees a delivery done finds it heard.
    """

    def __init__(self, heed: Callable[[Request], None] | None = None) -> None:
        self.requests: list[Request] = []
        self._heed = heed
        self.answers: defaultdict[str, deque[bytes]] = defaultdict(lambda: deque([answer(204)]))
        self.arrived = asyncio.Condition()
        self.port = 0
        self._released = asyncio.Event()

    def url(self, path: str = "/", *, host: str = "127.0.0.1") -> str:
        return f"http://{host}:{self.port}{path}"

    def will_answer(self, *answers: bytes, path: str = "/") -> None:
        self.answers[path] = deque(answers)

    def release(self) -> None:
        """Let the requests that hang be answered, with 204, and those that are dripped at be cut off."""
        self._released.set()

    def at(self, path: str) -> list[Request]:
        """The requests to one path so far."""
        return [request for request in self.requests if request.path == path]

    async def has(self, count: int, path: str = "/") -> list[Request]:
        """The requests to one path, once there are ``count`` of them."""
        async with asyncio.timeout(20), self.arrived:
            await self.arrived.wait_for(lambda: len(self.at(path)) >= count)
        return self.at(path)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            request = await _read(reader)
            if self._heed is not None:
                self._heed(request)
            async with self.arrived:
                self.requests.append(request)
                self.arrived.notify_all()
            answers = self.answers[request.path]
            said = answers.popleft() if len(answers) > 1 else answers[0]
            if said == HANG:
                await self._released.wait()
                said = answer(204)
            if isinstance(said, Drip):
                return await self._drip(writer, said)
            writer.write(said)
            await writer.drain()
        except (ConnectionError, asyncio.IncompleteReadError):
            pass  # the sender hung up
        finally:
            writer.close()

    async def _drip(self, writer: asyncio.StreamWriter, said: Drip) -> None:
        head, blank, rest = said.rpartition(b"\r\n\r\n")
        writer.write(head + blank)
        for byte in itertools.chain(rest, itertools.repeat(ord("x"))):
            if self._released.is_set():
                return
            writer.write(bytes([byte]))
            await writer.drain()
            await asyncio.sleep(_BETWEEN_BYTES)


async def _read(reader: asyncio.StreamReader) -> Request:
    head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
    first, *lines = head.rstrip().split("\r\n")
    headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
    body = await reader.readexactly(int(headers["content-length"]))
    return Request(path=first.split()[1], headers=headers, body=body)


@asynccontextmanager
async def receiving(
    ssl_context: ssl.SSLContext | None = None, *, heed: Callable[[Request], None] | None = None
) -> AsyncIterator[Receiver]:
    """A receiver on a port of this machine."""
    receiver = Receiver(heed)
    server = await asyncio.start_server(receiver.serve, "127.0.0.1", 0, ssl=ssl_context)
    receiver.port = server.sockets[0].getsockname()[1]
    try:
        yield receiver
    finally:
        receiver.release()
        server.close()
        await server.wait_closed()
