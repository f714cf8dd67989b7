"""Striking workers off the list that went without a word."""

from __future__ import annotations

from dataclasses import dataclass

from sqlalchemy.orm import Session, sessionmaker

from core.jobs.workers import forget_silent


@dataclass(frozen=True)
class ForgetCounts:
    """How many workers were marked as stopped."""

    forgotten: int = 0


def run_once(sessions: sessionmaker[Session]) -> ForgetCounts:
    """Mark the silent workers as stopped; one that speaks again is back."""
    with sessions.begin() as session:
        return ForgetCounts(forgotten=forget_silent(session))
