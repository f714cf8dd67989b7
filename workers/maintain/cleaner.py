"""Throwing away what is old: answers kept for repeated requests, and events that everybody has heard."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta

from sqlalchemy import TextClause
from sqlalchemy.orm import Session, sessionmaker

from workers.maintain import statements

_KEYS_KEPT = timedelta(hours=24)
_EVENTS_KEPT = timedelta(days=30)
_BATCH = 1000  # rows of one transaction, so that none holds locks for long


@dataclass(frozen=True)
class CleanCounts:
    """How many rows went."""

    idempotency_keys: int = 0
    events: int = 0


def run_once(sessions: sessionmaker[Session], *, batch: int = _BATCH) -> CleanCounts:
    """Delete all that is old, a batch at a time."""
    return CleanCounts(
        idempotency_keys=_delete(sessions, statements.DELETE_OLD_KEYS, _KEYS_KEPT, batch),
        events=_delete(sessions, statements.DELETE_OLD_EVENTS, _EVENTS_KEPT, batch),
    )


def _delete(sessions: sessionmaker[Session], statement: TextClause, age: timedelta, batch: int) -> int:
    total = 0
    while True:
        with sessions.begin() as session:
            deleted = len(session.execute(statement, {"age": age, "limit": batch}).all())
        total += deleted
        if deleted < batch:
            return total
