"""Making jobs claimable whose time has come."""

from __future__ import annotations

from dataclasses import dataclass

from sqlalchemy.orm import Session, sessionmaker

from core.jobs.recovery import admit, promote


@dataclass(frozen=True)
class PromoteCounts:
    """How many jobs were given a place of their key, and how many became claimable."""

    admitted: int = 0
    promoted: int = 0


def run_once(sessions: sessionmaker[Session]) -> PromoteCounts:
    """Admit what waited for a place, and promote one batch of due jobs."""
    with sessions.begin() as session:
        admitted = admit(session)
    with sessions.begin() as session:
        return PromoteCounts(admitted, promote(session))
