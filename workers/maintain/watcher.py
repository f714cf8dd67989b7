"""Watching that what must always hold does."""

from __future__ import annotations

from collections.abc import Mapping
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


class Watcher:
    """Asks the invariants. ``broken`` is what the last pass found: how many break each, by name, none left out."""

    def __init__(self, sessions: sessionmaker[Session]) -> None:
        self._sessions = sessions
        self.broken: Mapping[str, int] = {}

    def run_once(self) -> WatchCounts:
        """Look once, and tell what is broken."""
        findings = checks.check(self._sessions, newest=_NEWEST)
        for finding in findings:
            if finding.ids:
                log.error("invariant.broken", name=finding.invariant.name, ids=finding.ids)
        self.broken = {finding.invariant.name: len(finding.ids) for finding in findings}
        return WatchCounts(broken=sum(self.broken.values()))
