"""Asking long work to make way for generations that wait."""

from __future__ import annotations

from datetime import timedelta

from sqlalchemy.orm import Session, sessionmaker

from core.control.preempting import PreemptCounts, ask_to_yield


def run_once(sessions: sessionmaker[Session], *, least: timedelta, most: int) -> PreemptCounts:
    """Ask one worker of each pool, at most, whose work has run for ``least`` and made way under ``most`` times."""
    with sessions.begin() as session:
        return ask_to_yield(session, least=least, most=most)
