"""A collector of traces of the tests' own: it takes OTLP over HTTP, as any other, and keeps the spans."""

from __future__ import annotations

import gzip
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)


@dataclass(frozen=True)
class Span:
    """One span as it was sent; times are Unix nanoseconds."""

    service: str
    trace_id: str
    id: str
    parent_id: str
    name: str
    began_at: int
    ended_at: int
    attributes: dict[str, Any]
    is_error: bool

    def is_named_by(self, traceparent: str) -> bool:
        return traceparent.startswith(f"00-{self.trace_id}-{self.id}-")


class Collector:
    """What was received, by now."""

    def __init__(self) -> None:
        self.spans: list[Span] = []
        self.url = ""

    def take(self, body: bytes) -> None:
        request = ExportTraceServiceRequest.FromString(body)
        for resource in request.resource_spans:
            service = _attributes(resource.resource.attributes)["service.name"]
            for scope in resource.scope_spans:
                self.spans += [_span(service, sent) for sent in scope.spans]

    def of(self, trace_id: str) -> Trace:
        """One trace."""
        return Trace([span for span in self.spans if span.trace_id == trace_id])


@dataclass(frozen=True)
class Trace:
    """The spans of one trace."""

    spans: list[Span]

    def one(self, name: str) -> Span:
        """The only span of a name."""
        (found,) = self.all(name)
        return found

    def all(self, name: str) -> list[Span]:
        return [span for span in self.spans if span.name == name]

    def under(self, parent: Span) -> list[Span]:
        """Its children by their beginnings."""
        return sorted((span for span in self.spans if span.parent_id == parent.id), key=lambda span: span.began_at)

    def names_under(self, parent: Span) -> list[str]:
        return [span.name for span in self.under(parent)]

    @property
    def roots(self) -> list[Span]:
        """Spans whose parent is not among them."""
        known = {span.id for span in self.spans}
        return [span for span in self.spans if span.parent_id not in known]


def _span(service: str, sent: Any) -> Span:
    return Span(
        service=service,
        trace_id=sent.trace_id.hex(),
        id=sent.span_id.hex(),
        parent_id=sent.parent_span_id.hex(),
        name=sent.name,
        began_at=sent.start_time_unix_nano,
        ended_at=sent.end_time_unix_nano,
        attributes=_attributes(sent.attributes),
        is_error=sent.status.code == sent.status.STATUS_CODE_ERROR,
    )


def _attributes(sent: Any) -> dict[str, Any]:
    return {item.key: getattr(item.value, item.value.WhichOneof("value")) for item in sent}


@contextmanager
def collecting() -> Iterator[Collector]:
    """A collector on a free port."""
    collector = Collector()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            if self.headers.get("Content-Encoding") == "gzip":
                body = gzip.decompress(body)
            status = 200 if self.path == "/v1/traces" else 404
            if status == 200:
                collector.take(body)
            answer = ExportTraceServiceResponse().SerializeToString()
            self.send_response(status)
            self.send_header("Content-Type", "application/x-protobuf")
            self.send_header("Content-Length", str(len(answer)))
            self.end_headers()
            self.wfile.write(answer)

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    collector.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    try:
        yield collector
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
