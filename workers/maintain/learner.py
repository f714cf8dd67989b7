"""Learning what jobs cost and when they start."""

from __future__ import annotations

from sqlalchemy.orm import Session, sessionmaker

from core.jobs.learning import LearnCounts, learn


def run_once(sessions: sessionmaker[Session]) -> LearnCounts:
    """Learn from one batch of attempts that ended."""
    with sessions.begin() as session:
        return learn(session)
