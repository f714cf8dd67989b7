"""Adding up the attempts that ended, for what metrics tell of them all: each is counted once."""

from __future__ import annotations

import bisect
import math
from collections import Counter, defaultdict
from collections.abc import Sequence
from datetime import timedelta
from typing import Any, Final

from sqlalchemy import Row
from sqlalchemy.orm import Session

from core.scheduling import statements

WAIT_BOUNDS: Final = (0.1, 0.5, 1.0, 5.0, 10.0, 30.0, 60.0, 300.0, 900.0, 3600.0, math.inf)
"""Seconds: a wait is counted with the first that it is not above."""


def count(session: Session, rows: Sequence[Row[Any]]) -> None:
    """Add attempts, as ``ENDED_ATTEMPTS`` tells them, to the tallies."""
    _count_attempts(session, rows)
    _count_waits(session, [row for row in rows if row.is_first])
    _count_batches(session, [row for row in rows if row.token == row.batch_token])


def _count_attempts(session: Session, rows: Sequence[Row[Any]]) -> None:
    tallies: defaultdict[tuple[str, str, str], list[Row[Any]]] = defaultdict(list)
    for row in rows:
        tallies[row.pool, row.kind, row.outcome].append(row)
    for (pool, kind, outcome), ended in sorted(tallies.items()):
        sums = {
            "attempts": len(ended),
            "seconds": sum(row.took.total_seconds() for row in ended),
            "gpu_seconds": sum(row.attempt_gpu_seconds for row in ended),
        }
        session.execute(statements.ADD_TO_TALLY, {"pool": pool, "kind": kind, "outcome": outcome, **sums})


def _count_waits(session: Session, rows: Sequence[Row[Any]]) -> None:
    """From the acceptance to the first start."""
    tallies: defaultdict[tuple[str, int, float], list[float]] = defaultdict(list)
    for row in rows:
        seconds = row.waited / timedelta(seconds=1)
        tallies[row.pool, row.priority, WAIT_BOUNDS[bisect.bisect_left(WAIT_BOUNDS, seconds)]].append(seconds)
    for (pool, priority, bound), waits in sorted(tallies.items()):
        named = {"pool": pool, "priority": priority, "bound": bound}
        session.execute(statements.ADD_WAITS, {**named, "starts": len(waits), "seconds": sum(waits)})


def _count_batches(session: Session, rows: Sequence[Row[Any]]) -> None:
    """Each with the attempt that is named first in it."""
    tallies = Counter((row.pool, row.kind, row.warm, row.batch_size) for row in rows)
    for (pool, kind, warm, size), batches in sorted(tallies.items()):
        named = {"pool": pool, "kind": kind, "warm": warm, "size": size}
        session.execute(statements.ADD_BATCHES, {**named, "batches": batches})
