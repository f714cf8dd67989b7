"""A webhook endpoint of our own: this process listens on the loopback, at an address that nobody can guess."""

from __future__ import annotations

import secrets
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, HTTPServer
from queue import SimpleQueue


@dataclass(frozen=True)
class Heard:
    """One request that came in."""

    headers: dict[str, str]
    body: bytes


@dataclass(frozen=True)
class Listener:
    """Where it listens, and what has come."""

    url: str
    heard: SimpleQueue[Heard]


@contextmanager
def listening(own: set[str]) -> Iterator[Listener]:
    """Listen for the time of the block; ``own`` has the address meanwhile, so that it may be sent to."""
    heard: SimpleQueue[Heard] = SimpleQueue()
    path = f"/{secrets.token_urlsafe(32)}"

    class Handler(BaseHTTPRequestHandler):
        timeout = 5.0

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length", "0")))
            known = secrets.compare_digest(self.path, path)
            if known:
                heard.put(Heard({name.lower(): value for name, value in self.headers.items()}, body))
            self.send_response(204 if known else 404)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.1}, daemon=True)
        thread.start()
        url = f"http://127.0.0.1:{server.server_port}{path}"
        own.add(url)
        try:
            yield Listener(url, heard)
        finally:
            own.discard(url)
            server.shutdown()
            thread.join()
