"""What happens to every request, whatever it asks for: an id, a line in the log, a limit on its body."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import cast

import structlog
from starlette.datastructures import Headers, MutableHeaders
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from api.errors import INTERNAL, Trouble, respond
from core.errors import TooLarge
from core.ids import new_id
from core.tracing import OFF, SpanKind, Spot, Tracing, checked, trace_id

_log = structlog.get_logger()

_NUL = Trouble(400, "invalid-request", "The request cannot be read", "The address contains a NUL character.")


class RequestContext:
    """Gives each request an id, told in ``X-Request-Id``, logs how it ended, and answers what nobody caught.

    Every answer says how the rate limit stands that the request counted for.
    """

    def __init__(self, app: ASGIApp, *, tracing: Tracing) -> None:
        self._app = app
        self._tracing = tracing

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        request_id = new_id("req")
        scope.setdefault("state", {})["request_id"] = request_id
        with structlog.contextvars.bound_contextvars(request_id=request_id), self._traced(scope) as spot:
            await self._answered(scope, receive, send, spot)

    @contextmanager
    def _traced(self, scope: Scope) -> Iterator[Spot]:
        """The request's place in the client's trace, or in one of its own, where there is any trace at all."""
        parent = checked(Headers(scope=scope).get("traceparent"))
        method, path = scope["method"], scope["path"]
        tracing = self._tracing if path.startswith("/v1/") else OFF
        told = {"http.request.method": method, "url.path": path, "lockstep.request_id": scope["state"]["request_id"]}
        with tracing.span(method, parent=parent, kind=SpanKind.SERVER, attributes=told) as spot:
            if spot.traceparent is not None:
                structlog.contextvars.bind_contextvars(trace_id=trace_id(spot.traceparent))
            yield spot

    async def _answered(self, scope: Scope, receive: Receive, send: Send, spot: Spot) -> None:
        request_id = scope["state"]["request_id"]
        started_at, status = time.monotonic(), 0

        async def send_with_id(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                headers = MutableHeaders(scope=message)
                headers["X-Request-Id"] = request_id
                headers.update(scope["state"].get("rate_limit", {}))
            await send(message)

        try:
            await self._serve(scope, receive, send_with_id)
        except Exception:
            _log.exception("request failed", method=scope["method"], path=scope["path"])
            if status:
                raise  # the answer had begun: all that is left is to break the connection
            await _answer(INTERNAL, scope, receive, send_with_id)
        finally:
            _tell(spot, scope, status)
            duration_ms = round((time.monotonic() - started_at) * 1000, 1)
            _log.info("request", method=scope["method"], path=scope["path"], status=status, duration_ms=duration_ms)

    async def _serve(self, scope: Scope, receive: Receive, send: Send) -> None:
        # Postgres has no text with NUL in it, so no id, name or cursor has one either.
        if b"%00" in scope.get("raw_path", b"") or b"%00" in scope["query_string"]:
            await _answer(_NUL, scope, receive, send)
        else:
            await self._app(scope, receive, send)


def _tell(spot: Spot, scope: Scope, status: int) -> None:
    """Name the span by its route: there are few of these."""
    if spot.span is None:
        return
    route = getattr(scope.get("route"), "path", None)
    if route is not None:
        spot.rename(f"{scope['method']} {route}")
        spot.tell(**{"http.route": route})
    spot.tell(**{"http.response.status_code": status})
    if status >= 500:
        spot.fail(f"answered {status}")


class BodyLimit:
    """Refuses bodies over the limit: by what they say of themselves, and by what arrives."""

    def __init__(self, app: ASGIApp, *, max_bytes: int) -> None:
        self._app = app
        self._max_bytes = max_bytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        declared = Headers(scope=scope).get("content-length", "")
        if declared.isdecimal() and int(declared) > self._max_bytes:
            await _answer(self._too_large(), scope, receive, send)
            return
        arrived = 0

        async def receive_limited() -> Message:
            nonlocal arrived
            message = await receive()
            arrived += len(cast(bytes, message.get("body", b"")))
            if arrived > self._max_bytes:
                # Only an HTTPException passes through the framework's reading of the body unchanged.
                raise HTTPException(413, self._too_large().detail)
            return message

        await self._app(scope, receive_limited, send)

    def _too_large(self) -> Trouble:
        detail = f"The body is larger than {self._max_bytes} bytes."
        return Trouble(413, TooLarge.code, TooLarge.title(), detail, headers={"Connection": "close"})


async def _answer(trouble: Trouble, scope: Scope, receive: Receive, send: Send) -> None:
    request_id = scope["state"]["request_id"]
    response = respond(trouble, method=scope["method"], path=scope["path"], request_id=request_id)
    await response(scope, receive, send)
