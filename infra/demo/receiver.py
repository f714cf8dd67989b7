"""A customer's webhook receiver: a small HTTP server that believes nothing it cannot verify."""

from __future__ import annotations

import threading
from collections.abc import Collection, Mapping
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any, Self

from standardwebhooks import Webhook, WebhookVerificationError


class Receiver:
    """Counts what arrives on a port of its own; used as a context manager."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._checker: Webhook | None = None
        self._ids: set[str] = set()
        self.duplicates = 0
        self.rejected: list[str] = []
        self._server = _Server(self)
        self._thread = threading.Thread(target=self._server.serve_forever, name="webhook receiver", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    @property
    def url(self) -> str:
        """Where webhooks are to be sent."""
        return f"http://127.0.0.1:{self._server.server_port}/webhooks"

    @property
    def verified(self) -> int:
        """How many different events arrived with a valid signature."""
        with self._changed:
            return len(self._ids)

    def expect(self, secret: str) -> None:
        """Check signatures against this secret from now on; until then everything is rejected."""
        self._checker = Webhook(secret)

    def take(self, headers: Mapping[str, str], body: bytes) -> HTTPStatus:
        """Verify one delivery, count it, and say how to answer it."""
        try:
            event_id = self._verify(headers, body)
        except (WebhookVerificationError, ValueError, KeyError, TypeError) as error:
            with self._changed:
                self.rejected.append(str(error))
            return HTTPStatus.BAD_REQUEST
        with self._changed:
            self.duplicates += event_id in self._ids
            self._ids.add(event_id)
            self._changed.notify_all()
        return HTTPStatus.NO_CONTENT

    def wait_for(self, event_ids: Collection[str], *, seconds: float) -> set[str]:
        """Wait until these events have arrived; the ones that did not within the time."""
        wanted = set(event_ids)
        with self._changed:
            self._changed.wait_for(lambda: wanted <= self._ids, timeout=seconds)
            return wanted - self._ids

    def _verify(self, headers: Mapping[str, str], body: bytes) -> str:
        if self._checker is None:
            raise WebhookVerificationError("a delivery before the endpoint exists")
        event: dict[str, Any] = self._checker.verify(body, dict(headers))
        if event["id"] != headers["webhook-id"]:
            raise WebhookVerificationError("the body's id is not the one that the headers name")
        return str(event["id"])


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self, receiver: Receiver) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.receiver = receiver


class _Handler(BaseHTTPRequestHandler):
    server: _Server

    def do_POST(self) -> None:
        """Take one delivery."""
        body = self.rfile.read(int(self.headers.get("content-length", 0)))
        headers = {name.lower(): value for name, value in self.headers.items()}
        self.send_response(self.server.receiver.take(headers, body))
        self.end_headers()

    def log_message(self, *args: object) -> None:
        """Keep quiet: the demo's own lines are enough."""
