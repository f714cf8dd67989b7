"""Letting jobs go on that waited for others."""

from __future__ import annotations

from sqlalchemy.orm import Session, sessionmaker

from core.control.families import FamilyCounts, settle


def run_once(sessions: sessionmaker[Session]) -> FamilyCounts:
    """Settle one batch of families."""
    with sessions.begin() as session:
        return settle(session)
