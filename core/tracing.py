"""Traces in OpenTelemetry's terms: one for each job, from its request to the deliveries of its events.

A job carries a W3C ``traceparent`` in its row, by which every process that has to do with it adds to the same trace.
Off unless there is somewhere to send spans to: then none is made, and what a client sent is only passed on.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Final

from opentelemetry.context import Context
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.trace import Span, SpanContext, SpanKind, StatusCode
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from core.release import release

__all__ = [
    "OFF",
    "Attributes",
    "SpanKind",
    "Spot",
    "Tracing",
    "carrying",
    "checked",
    "current",
    "open_tracing",
    "stage",
    "trace_id",
]

_FORM: Final = re.compile(r"(?!ff)[0-9a-f]{2}-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}")
_LENGTH: Final = 55  # what a later version adds behind it is left out
_PROPAGATOR: Final = TraceContextTextMapPropagator()

Attributes = Mapping[str, str | int | float | bool]


@dataclass(frozen=True)
class Spot:
    """A place in a trace: what happens there belongs under ``traceparent``."""

    tracing: Tracing
    traceparent: str | None
    span: Span | None = None

    def tell(self, **attributes: str | float | bool) -> None:
        """Say more about it."""
        if self.span is not None:
            self.span.set_attributes(attributes)

    def rename(self, name: str) -> None:
        """Call it otherwise than it began."""
        if self.span is not None:
            self.span.update_name(name)

    def fail(self, why: str) -> None:
        """Mark it as gone wrong."""
        if self.span is not None:
            self.span.set_status(StatusCode.ERROR, why)


_here: ContextVar[Spot | None] = ContextVar("spot", default=None)


class Tracing:
    """Where one process sends its spans; without a provider, nowhere."""

    def __init__(self, provider: TracerProvider | None = None) -> None:
        self._provider = provider
        self._tracer = None if provider is None else provider.get_tracer("lockstep", release())

    @property
    def is_on(self) -> bool:
        """Whether spans are made at all."""
        return self._tracer is not None

    @contextmanager
    def span(
        self,
        name: str,
        *,
        parent: str | None,
        kind: SpanKind = SpanKind.INTERNAL,
        attributes: Attributes | None = None,
    ) -> Iterator[Spot]:
        """Have the block be a span, under a traceparent or the first of a new trace; off, only pass the parent on."""
        if self._tracer is None:
            spot = Spot(self, parent)
        else:
            span = self._tracer.start_span(name, _context(parent), kind, attributes)
            spot = Spot(self, _traceparent(span), span)
        place = _here.set(spot)
        try:
            yield spot
        except Exception as error:
            spot.fail(type(error).__name__)
            raise
        finally:
            _here.reset(place)
            if spot.span is not None:
                spot.span.end()

    def record(
        self,
        name: str,
        began_at: float,
        ended_at: float,
        *,
        parent: str,
        kind: SpanKind = SpanKind.INTERNAL,
        attributes: Attributes | None = None,
        error: str | None = None,
    ) -> str:
        """Tell of a span after the fact, by Unix times; returns the traceparent of what belongs under it."""
        if self._tracer is None:
            return parent
        span = self._tracer.start_span(name, _context(parent), kind, attributes, start_time=_nanoseconds(began_at))
        if error is not None:
            span.set_status(StatusCode.ERROR, error)
        span.end(_nanoseconds(max(began_at, ended_at)))
        return _traceparent(span)

    def close(self) -> None:
        """Send what is left."""
        if self._provider is not None:
            self._provider.shutdown()


OFF: Final = Tracing()


def open_tracing(service: str, endpoint: str | None) -> Tracing:
    """Traces of one process, sent by OTLP over HTTP to ``endpoint``; None: nowhere."""
    if not endpoint:  # an empty variable is as none
        return OFF
    named = {"service.namespace": "lockstep", "service.name": f"lockstep-{service}", "service.version": release()}
    provider = TracerProvider(resource=Resource.create(named), shutdown_on_exit=False)
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter(f"{endpoint.rstrip('/')}/v1/traces")))
    return Tracing(provider)


def current() -> str | None:
    """The traceparent of what is done here, if it is of any trace."""
    spot = _here.get()
    return None if spot is None else spot.traceparent


@contextmanager
def stage(name: str) -> Iterator[None]:
    """Have the block be a span of its own, where it is part of one."""
    spot = _here.get()
    if spot is None or spot.span is None:
        yield
        return
    with spot.tracing.span(name, parent=spot.traceparent):
        yield


@contextmanager
def carrying(traceparent: str | None) -> Iterator[None]:
    """Have what is made in the block belong under ``traceparent``."""
    place = _here.set(Spot(OFF, traceparent))
    try:
        yield
    finally:
        _here.reset(place)


def checked(sent: str | None) -> str | None:
    """What a client sent as ``traceparent``, if it is one."""
    known = (sent or "").strip()[:_LENGTH]
    return known if _FORM.fullmatch(known) else None


def trace_id(traceparent: str | None) -> str | None:
    """The trace's part of a traceparent."""
    return None if traceparent is None else traceparent.split("-")[1]


def _context(parent: str | None) -> Context:
    return Context() if parent is None else _PROPAGATOR.extract({"traceparent": parent}, Context())


def _traceparent(span: Span) -> str:
    known: SpanContext = span.get_span_context()
    return f"00-{known.trace_id:032x}-{known.span_id:016x}-{known.trace_flags:02x}"


def _nanoseconds(at: float) -> int:
    return round(at * 1e9)
