"""Ending jobs whose deadlines have passed."""

from __future__ import annotations

from sqlalchemy.orm import Session, sessionmaker

from core.control.expiring import ExpireCounts, expire


def run_once(sessions: sessionmaker[Session]) -> ExpireCounts:
    """Expire one batch of overdue jobs."""
    with sessions.begin() as session:
        return expire(session)
