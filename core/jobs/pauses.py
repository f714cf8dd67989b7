"""How long to rest between two looks at a job that somebody waits for."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta

_FIRST = timedelta(milliseconds=25)
_GROWTH = 1.5


def growing(most: timedelta) -> Iterator[float]:
    """Seconds to rest: first hardly anything, then longer and longer, in the end ``most``.

    A picture in one step is done in a few hundredths of a second, and a training in minutes: whoever waits is told
    after about half as long again as the job took, or ``most`` later at the latest, and long jobs are not looked at
    all the time.
    """
    rest = _FIRST
    while rest < most:
        yield rest.total_seconds()
        rest *= _GROWTH
    while True:
        yield most.total_seconds()
