"""Long work that makes way: a worker is asked to give its training back while generations of its pool wait.

The job leaves a checkpoint at the end of its step, counts no attempt, rests for a moment so that those it made way for
are served, and goes on when its turn comes. It is asked a few times only, so that it ends however busy the pool is.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta

from sqlalchemy.orm import Session

from core.control import statements
from core.jobs.workers import FRESH

_WAITED = timedelta(seconds=1)  # of a generation: a worker that is about to be free takes it sooner


@dataclass(frozen=True)
class PreemptCounts:
    """How many jobs were asked to make way."""

    asked: int = 0


def ask_to_yield(session: Session, *, least: timedelta, most: int) -> PreemptCounts:
    """Ask one worker of each pool that is short of them, whose work has run for ``least`` and yielded under ``most``
    times.
    """
    values = {"least": least, "most": most, "waited": _WAITED, "fresh": FRESH}
    return PreemptCounts(asked=len(session.execute(statements.ASK_TO_YIELD, values).all()))
