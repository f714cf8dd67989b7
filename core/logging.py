"""Logs of every process: structlog and the standard library's loggers in one format on standard error.

JSON lines where a program reads them, coloured text where a person does. Call ``configure_logging`` once, at the
process's entry point; elsewhere ``structlog.get_logger()``. What is bound to structlog's context variables (the
request, the tenant, the job) appears on every line, those of libraries included.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Sequence
from typing import TextIO

import structlog
from structlog.typing import EventDict, Processor, WrappedLogger

# Their INFO lines tell every request and every statement; ours say what mattered.
_QUIET = ("httpx", "httpcore", "botocore", "boto3", "urllib3", "s3transfer", "alembic")

# Local variables hold keys and secrets, and rendering them takes seconds: a log shows none.
_TRACEBACKS = structlog.tracebacks.ExceptionDictTransformer(show_locals=False)


def configure_logging(service: str, *, level: int = logging.INFO, stream: TextIO = sys.stderr) -> None:
    """Send every logger's lines to ``stream``, each marked with ``service``."""

    def mark(_: WrappedLogger, __: str, event: EventDict) -> EventDict:
        event.pop("color_message", None)  # uvicorn's message once more, with terminal colours
        return {"service": service, **event}

    shared: Sequence[Processor] = (
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.stdlib.ExtraAdder(),
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.processors.StackInfoRenderer(),
        mark,
    )
    render: Sequence[Processor] = (
        (structlog.dev.ConsoleRenderer(exception_formatter=structlog.dev.plain_traceback),)
        if stream.isatty()
        else (structlog.processors.ExceptionRenderer(_TRACEBACKS), structlog.processors.JSONRenderer())
    )
    structlog.configure(
        processors=[
            structlog.stdlib.filter_by_level,
            structlog.stdlib.PositionalArgumentsFormatter(),
            *shared,
            structlog.stdlib.ProcessorFormatter.wrap_for_formatter,
        ],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=True,
    )
    handler = logging.StreamHandler(stream)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *render],
        )
    )
    logging.basicConfig(handlers=[handler], level=level, force=True)
    for name in _QUIET:
        logging.getLogger(name).setLevel(logging.WARNING)
