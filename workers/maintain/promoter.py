"""Making jobs claimable whose time has come."""

from __future__ import annotations

from dataclasses import dataclass

from sqlalchemy.orm import Session, sessionmaker

from core.jobs.recovery import promote


@dataclass(frozen=True)
class PromoteCounts:
    """How many jobs became claimable."""

    promoted: int = 0


def run_once(sessions: sessionmaker[Session]) -> PromoteCounts:
    """Promote one batch of due jobs."""
    with sessions.begin() as session:
        return PromoteCounts(promoted=promote(session))
