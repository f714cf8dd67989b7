"""Parsing of ``text/event-stream`` as the WHATWG HTML standard defines it (section 9.2)."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

_LINE_END = re.compile(r"\r\n|\n|\r(?!\Z)")


@dataclass(frozen=True)
class ServerSentEvent:
    """One dispatched event; ``id`` is the last id seen on the stream, the one to resume after."""

    type: str
    data: str
    id: str | None


def parse(chunks: Iterable[str]) -> Iterator[ServerSentEvent]:
    """Yield the events in a stream's text; comments and an unfinished last event are dropped."""
    kind, data, last_id = "message", list[str](), None
    for line in _lines(chunks):
        if not line:
            if data:
                yield ServerSentEvent(kind, "\n".join(data), last_id)
            kind, data = "message", []
            continue
        field, _, value = line.partition(":")  # a comment has an empty field name
        value = value.removeprefix(" ")
        if field == "event":
            kind = value
        elif field == "data":
            data.append(value)
        elif field == "id" and "\0" not in value:
            last_id = value


def _lines(chunks: Iterable[str]) -> Iterator[str]:
    """Split at LF, CRLF and CR only: ``str.splitlines`` also splits at characters that JSON leaves unescaped."""
    rest = ""
    for chunk in chunks:
        rest += chunk
        # A CR at the end may be the first half of a CRLF: it waits for the next chunk.
        *lines, rest = _LINE_END.split(rest)
        yield from lines
