"""Watching that what must always hold does."""

from __future__ import annotations

from dataclasses import dataclass

import structlog
from sqlalchemy.orm import Session, sessionmaker

from core.invariants import checks

_NEWEST = 10_000  # rows of histories; more than a minute's

log = structlog.get_logger()


@dataclass(frozen=True)
class WatchCounts:
    """How much breaks an invariant, in all."""

    broken: int = 0


def run_once(sessions: sessionmaker[Session]) -> WatchCounts:
    """Look once, tell what is broken, and keep the numbers for metrics."""
    findings = checks.check(sessions, newest=_NEWEST)
    for finding in findings:
        if finding.ids:
            log.error("invariant.broken", name=finding.invariant.name, ids=finding.ids)
    with sessions.begin() as session:
        checks.keep(session, findings)
    return WatchCounts(broken=sum(len(finding.ids) for finding in findings))
