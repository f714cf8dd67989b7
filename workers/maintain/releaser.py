"""Keeping webhook endpoints: held deliveries, order, secrets that have expired."""

from __future__ import annotations

from sqlalchemy.orm import Session, sessionmaker

from core.webhooks.releasing import ReleaseCounts, release


def run_once(sessions: sessionmaker[Session]) -> ReleaseCounts:
    """Release, put off and forget what is to be."""
    with sessions.begin() as session:
        return release(session)
