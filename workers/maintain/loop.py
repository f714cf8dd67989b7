"""Running a pass again and again, whatever it meets."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from dataclasses import asdict, dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, TypeVar

import structlog

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

T = TypeVar("T")

_FIRST_DELAY = 0.1  # seconds, doubled with every failure in a row
_LONGEST_DELAY = 5.0

log = structlog.get_logger()


async def _sleep(pause: timedelta) -> None:
    await asyncio.sleep(pause.total_seconds())


@dataclass(frozen=True)
class Loop:
    """A pass and its rhythm. ``run_once`` does a bounded amount of work and says what it did.

    ``is_routine``: what it does is everyday business, logged for debugging only.
    """

    name: str
    every: timedelta
    run_once: Callable[[], Awaitable[DataclassInstance]]
    rest: Callable[[timedelta], Awaitable[None]] = _sleep
    is_routine: bool = False


async def repeat(loop: Loop) -> None:
    """Make pass after pass until cancelled."""
    while True:
        counts = asdict(await persist(loop.name, loop.run_once))
        if any(counts.values()):
            log.log(logging.DEBUG if loop.is_routine else logging.INFO, f"{loop.name}.done", **counts)
        await loop.rest(loop.every)


async def persist(name: str, action: Callable[[], Awaitable[T]]) -> T:
    """The action's result, however often it must be tried; a series of failures is told once, and so is its end.

    Any exception counts, a server that is away as well as a mistake of ours: one broken loop must not stop the others.
    """
    delay, failures = _FIRST_DELAY, 0
    while True:
        try:
            result = await action()
        except Exception as error:
            if failures == 0:
                log.warning(f"{name}.failing", error=str(error), exc_info=True)
            failures += 1
        else:
            if failures:
                log.info(f"{name}.recovered", failures=failures)
            return result
        await asyncio.sleep(delay)
        delay = min(2 * delay, _LONGEST_DELAY)
