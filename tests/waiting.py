"""Waiting in tests: for a condition, never for a time."""

from __future__ import annotations

import time
from collections.abc import Callable


def until(condition: Callable[[], object], *, seconds: float = 60.0, every: float = 0.05) -> None:
    """Return once ``condition`` holds; fail when it does not within ``seconds``."""
    give_up_at = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > give_up_at:
            raise AssertionError(f"not so within {seconds:.0f} s")
        time.sleep(every)
