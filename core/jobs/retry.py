"""Whether a failed attempt is followed by another, and when: pure decisions, acted on elsewhere."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta

_FIRST = timedelta(seconds=2)
_LONGEST = timedelta(minutes=5)


@dataclass(frozen=True)
class JobError:
    """Why an attempt failed. ``retryable``: another attempt may do better (a transient error)."""

    code: str
    message: str
    retryable: bool

    def as_dict(self) -> dict[str, object]:
        """The shape in which it is stored and shown."""
        return {"code": self.code, "message": self.message, "retryable": self.retryable}


WORKER_LOST = JobError("worker-lost", "The worker stopped answering.", retryable=True)


def backoff(error: JobError, *, attempt: int, max_attempts: int, jitter: Callable[[], float]) -> timedelta | None:
    """How long to wait before the next attempt, or None to give up.

    Doubles from 2 s to 5 min, times ``0.75 + jitter() / 2`` so that jobs that failed together do not return together.
    ``attempt`` is the one that failed, from 1; ``jitter`` returns a number in [0, 1).
    """
    if not error.retryable or attempt >= max_attempts:
        return None
    doubled: timedelta = _FIRST * 2 ** (attempt - 1)
    return min(doubled, _LONGEST) * (0.75 + jitter() / 2)
