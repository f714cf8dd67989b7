"""A TCP proxy that can fail as networks do: connections that go silent, and commits whose answer is lost."""

from __future__ import annotations

import asyncio
import sys
import threading
from collections.abc import Awaitable, Callable, Coroutine
from contextlib import suppress
from pathlib import Path
from typing import Any

Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]
Connect = Callable[[], Awaitable[Streams]]

_CHUNK = 65536


def tcp(port: int) -> Connect:
    """A server on a port of this machine."""
    return lambda: asyncio.open_connection("127.0.0.1", port)


def unix(path: Path) -> Connect:
    """A server on a Unix socket."""
    return lambda: asyncio.open_unix_connection(path)


class _Link:
    """One client's connection and the one to the server behind it."""

    def __init__(self, near: asyncio.StreamWriter, far: asyncio.StreamWriter) -> None:
        self.near, self.far = near, far
        self.speaking = asyncio.Event()
        self.speaking.set()

    def abort(self) -> None:
        self.speaking.set()
        for writer in (self.near, self.far):
            writer.transport.abort()


class Proxy:
    """One listening port before one server. The methods may be called from any thread."""

    def __init__(self, connect: Connect, draw_cut: Callable[[], int] | None = None) -> None:
        """``draw_cut`` says after how many bytes of answers the next connection breaks."""
        self.port = 0
        self.commits_cut = 0
        self._connect = connect
        self._draw_cut = draw_cut or (lambda: sys.maxsize)
        self._links: set[_Link] = set()
        self._cutting = False

    async def listen(self) -> asyncio.Server:
        """Begin, on a free port."""
        server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.port = server.sockets[0].getsockname()[1]
        return server

    def swallow(self) -> list[_Link]:
        """Pass nothing on for the connections there are, and say nothing; return them."""
        silenced = [link for link in list(self._links) if link.speaking.is_set()]
        for link in silenced:
            link.speaking.clear()
        return silenced

    def cut_commits(self, *, on: bool) -> None:
        """From now on, break a connection once the server has answered a commit, before the client hears of it."""
        self._cutting = on

    def abort(self) -> None:
        """Break every connection; on the network's loop."""
        for link in list(self._links):
            link.abort()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            far_reader, far_writer = await self._connect()
        except OSError:  # the server is away
            writer.transport.abort()
            return
        link = _Link(writer, far_writer)
        self._links.add(link)
        committing = asyncio.Event()

        async def ask() -> None:
            while data := await reader.read(_CHUNK):
                if self._cutting and b"COMMIT" in data:
                    committing.set()
                await self._pass_on(link, far_writer, data)

        async def answer() -> None:
            left = self._draw_cut()
            while left > 0 and (data := await far_reader.read(min(left, _CHUNK))):
                left -= len(data)
                if committing.is_set():
                    self.commits_cut += 1
                    return
                await self._pass_on(link, writer, data)

        pumps = [asyncio.ensure_future(pump()) for pump in (ask, answer)]
        try:
            await asyncio.wait(pumps, return_when=asyncio.FIRST_COMPLETED)
            await link.speaking.wait()  # else not even that the server has hung up is told
        finally:
            for pump in pumps:
                pump.cancel()
            await asyncio.gather(*pumps, return_exceptions=True)
            link.abort()
            self._links.discard(link)

    @staticmethod
    async def _pass_on(link: _Link, writer: asyncio.StreamWriter, data: bytes) -> None:
        await link.speaking.wait()
        writer.write(data)
        await writer.drain()


class Network:
    """An event loop in a thread of its own, on which proxies live."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._servers: list[asyncio.Server] = []
        self._proxies: list[Proxy] = []
        self._thread = threading.Thread(target=self._loop.run_forever, name="network", daemon=True)
        self._thread.start()

    def run(self, work: Coroutine[Any, Any, Any], *, seconds: float = 30) -> Any:
        """Run on the network's loop and wait for the result."""
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(seconds)

    def place(self, connect: Connect, draw_cut: Callable[[], int] | None = None) -> Proxy:
        """A proxy before a server."""
        proxy = Proxy(connect, draw_cut)
        self._proxies.append(proxy)
        self._servers.append(self.run(proxy.listen()))
        return proxy

    def reset(self, links: list[_Link]) -> None:
        """Break connections that were swallowed, as a network does that has forgotten them."""

        def abort() -> None:
            for link in links:
                link.abort()

        self._loop.call_soon_threadsafe(abort)

    def close(self) -> None:
        """Break everything."""

        async def end_all() -> None:
            for server in self._servers:
                server.close()
            for proxy in self._proxies:
                proxy.abort()
            await asyncio.gather(*(asyncio.all_tasks() - {asyncio.current_task()}), return_exceptions=True)

        with suppress(TimeoutError):
            self.run(end_all(), seconds=10)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()
