from __future__ import annotations

import io
import json
import logging
from collections.abc import Iterator
from datetime import datetime
from typing import Any

import pytest
import structlog

from core.logging import configure_logging


@pytest.fixture
def stream() -> Iterator[io.StringIO]:
    root = logging.getLogger()
    before, level = list(root.handlers), root.level
    stream = io.StringIO()
    configure_logging("api", stream=stream)
    yield stream
    structlog.contextvars.clear_contextvars()
    structlog.reset_defaults()
    root.handlers[:] = before
    root.setLevel(level)


def _lines(stream: io.StringIO) -> list[dict[str, Any]]:
    return [json.loads(line) for line in stream.getvalue().splitlines()]


def test_a_line_tells_service_time_level_logger_and_what_was_bound(stream: io.StringIO) -> None:
    structlog.contextvars.bind_contextvars(request_id="req_1")
    structlog.get_logger("core.jobs").warning("job requeued", job_id="job_1")
    (line,) = _lines(stream)
    assert datetime.fromisoformat(line.pop("timestamp")).utcoffset() is not None
    assert line == {
        "service": "api",
        "level": "warning",
        "logger": "core.jobs",
        "event": "job requeued",
        "job_id": "job_1",
        "request_id": "req_1",
    }


def test_a_librarys_logger_writes_the_same_lines(stream: io.StringIO) -> None:
    structlog.contextvars.bind_contextvars(request_id="req_1")
    logging.getLogger("uvicorn.error").info("started on port %d", 8000, extra={"color_message": "..."})
    (line,) = _lines(stream)
    assert "color_message" not in line
    assert (line["event"], line["logger"], line["request_id"]) == ("started on port 8000", "uvicorn.error", "req_1")


def test_an_exception_is_on_the_line_that_reports_it(stream: io.StringIO) -> None:
    try:
        raise ValueError("no such pool")
    except ValueError:
        structlog.get_logger("core").exception("ring failed")
        logging.getLogger("library").exception("call failed")
    for line in _lines(stream):
        assert line["exception"][0]["exc_value"] == "no such pool"


def test_what_is_below_the_level_and_the_chatter_of_libraries_is_left_out(stream: io.StringIO) -> None:
    structlog.get_logger("core").debug("tick")
    logging.getLogger("httpx").info("HTTP Request: POST ...")
    assert stream.getvalue() == ""


def test_a_person_at_a_terminal_reads_text() -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    terminal = Terminal()
    root = logging.getLogger()
    before = list(root.handlers)
    configure_logging("api", stream=terminal)
    structlog.get_logger("core").info("ready")
    root.handlers[:] = before
    structlog.reset_defaults()
    assert "ready" in terminal.getvalue()
    assert not terminal.getvalue().startswith("{")
