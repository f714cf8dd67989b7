"""Taking jobs back from workers that stopped renewing their leases."""

from __future__ import annotations

from collections.abc import Callable

from sqlalchemy.orm import Session, sessionmaker

from core.jobs.recovery import ReapCounts, reap


def run_once(sessions: sessionmaker[Session], *, jitter: Callable[[], float]) -> ReapCounts:
    """Reap one batch of expired leases; ``jitter`` returns a number in [0, 1)."""
    with sessions.begin() as session:
        return reap(session, jitter=jitter)
