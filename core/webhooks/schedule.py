"""When a delivery is tried again, and when it is given up: pure decisions over one attempt's answer."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from enum import StrEnum

# After the n-th attempt: ten in all, over three days. The schedule that the Standard Webhooks specification gives.
DELAYS: tuple[timedelta, ...] = (
    timedelta(seconds=5),
    timedelta(minutes=5),
    timedelta(minutes=30),
    timedelta(hours=2),
    timedelta(hours=5),
    timedelta(hours=10),
    timedelta(hours=14),
    timedelta(hours=20),
    timedelta(hours=24),
)
MAX_ATTEMPTS = len(DELAYS) + 1
_JITTER = 0.2  # either way, so that deliveries that failed together do not return together
_LONGEST_RETRY_AFTER = timedelta(hours=24)
_GONE = 410
_OVERLOADED = frozenset({429, 503})
FAILING_FOR = timedelta(days=5)  # an endpoint that accepted nothing for so long is disabled


class DeliveryState(StrEnum):
    """Where a delivery stands."""

    PENDING = "pending"  # owed: due at ``next_attempt_at``
    HELD = "held"  # kept until its endpoint is enabled
    DELIVERED = "delivered"
    FAILED = "failed"  # attempts exhausted, or its endpoint deleted


@dataclass(frozen=True)
class Answer:
    """What one request came to. ``error`` is null exactly when it was accepted; ``status`` when none was received."""

    status: int | None
    error: str | None
    duration: timedelta
    retry_after: timedelta | None = None

    @property
    def is_gone(self) -> bool:
        """Whether the receiver asked never to be called again."""
        return self.status == _GONE

    @property
    def quiet(self) -> timedelta | None:
        """How long the receiver asked to be left alone, whatever there is to tell."""
        if self.status not in _OVERLOADED or self.retry_after is None or self.retry_after <= timedelta(0):
            return None
        return min(self.retry_after, _LONGEST_RETRY_AFTER)


@dataclass(frozen=True)
class Verdict:
    """What becomes of the delivery; ``delay`` is set exactly when it stays pending."""

    state: DeliveryState
    delay: timedelta | None = None


def judge(answer: Answer, *, attempt: int, jitter: Callable[[], float], is_shared: bool = False) -> Verdict:
    """Decide after the ``attempt``-th answer, counted from 1; ``jitter`` returns a number in [0, 1).

    An address that is gone is the end of its endpoint, or of the delivery alone where the endpoint ``is_shared``. A
    receiver's ``Retry-After`` can make the wait longer, up to a day, never shorter.
    """
    if answer.error is None:
        return Verdict(DeliveryState.DELIVERED)
    if answer.is_gone:
        return Verdict(DeliveryState.FAILED if is_shared else DeliveryState.HELD)
    if attempt >= MAX_ATTEMPTS:
        return Verdict(DeliveryState.FAILED)
    delay = DELAYS[attempt - 1] * (1 - _JITTER + 2 * _JITTER * jitter())
    if answer.retry_after is not None:
        delay = max(delay, min(answer.retry_after, _LONGEST_RETRY_AFTER))
    return Verdict(DeliveryState.PENDING, delay)
