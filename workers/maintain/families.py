"""Letting jobs go on that waited for others."""

from __future__ import annotations

from sqlalchemy.orm import Session, sessionmaker

from core.control.families import FamilyCounts, settle

_PASS = 200  # families, so that a pass ends


def run_once(sessions: sessionmaker[Session]) -> FamilyCounts:
    """Settle families, each in a transaction of its own."""
    unblocked = failed = 0
    for _ in range(_PASS):
        with sessions.begin() as session:
            settled = settle(session)
        if settled == FamilyCounts():
            break
        unblocked, failed = unblocked + settled.unblocked, failed + settled.failed
    return FamilyCounts(unblocked=unblocked, failed=failed)
