"""When a failed request is tried again, and how long to wait before."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

import httpx

_RETRYABLE = frozenset({429, 502, 503, 504})


@dataclass(frozen=True)
class RetryPolicy:
    """Exponential pauses with jitter, unless the server asks for another pause or for none.

    ``RetryPolicy(retries=0)`` tries everything once.
    """

    retries: int = 5
    first_pause: float = 0.5
    longest_pause: float = 8.0
    longest_asked_pause: float = 60.0  # a server that asks for more gets no retry: the caller should know instead

    def pause(self, failures: int, response: httpx.Response | None, *, random: Callable[[], float]) -> float | None:
        """Seconds to wait after the ``failures``-th failure in a row, or None to give up.

        ``response`` is None when the connection failed; ``random`` returns numbers in [0, 1).
        """
        if failures > self.retries or (response is not None and not _is_retryable(response)):
            return None
        asked = _asked_pause(response) if response is not None else None
        if asked is not None:
            return asked if asked <= self.longest_asked_pause else None
        ceiling: float = min(self.longest_pause, self.first_pause * 2 ** (failures - 1))
        return ceiling * (0.5 + 0.5 * random())


def _is_retryable(response: httpx.Response) -> bool:
    """The server's own word counts more than its status: it knows whether a job may exist already."""
    match response.headers.get("x-should-retry"):
        case "true":
            return True
        case "false":
            return False
        case _:
            return response.status_code in _RETRYABLE


def _asked_pause(response: httpx.Response) -> float | None:
    value = response.headers.get("retry-after")
    if value is None:
        return None
    try:
        return max(0.0, float(value))
    except ValueError:
        pass
    try:
        at = parsedate_to_datetime(value)
    except ValueError:
        return None
    return max(0.0, (at.astimezone(UTC) - datetime.now(UTC)).total_seconds())
