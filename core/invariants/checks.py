"""Asking whether every invariant holds: for operators, for maintenance every minute, and for the chaos suite.

The numbers are those of the design; what a CHECK constraint or a unique key holds already is not asked again, and
broker depth (I8) and fairness (I12) are measured where they arise.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta

from sqlalchemy import TextClause
from sqlalchemy.orm import Session, sessionmaker

from core.invariants import statements
from core.storage.s3 import ObjectMissing, ObjectStore

MAINTENANCE_IS_LATE = timedelta(seconds=60)  # after which a lease, a retry or a family should have been seen to
_TOLD_FOR = timedelta(days=1)  # events are kept for longer than this
_SHOWN = 20  # ids of one invariant that are told


@dataclass(frozen=True)
class Invariant:
    """Something that always holds, and the statement that finds where it does not."""

    code: str
    name: str
    says: str
    statement: TextClause


@dataclass(frozen=True)
class Finding:
    """An invariant and what breaks it: ids, the first few of them; none when it holds."""

    invariant: Invariant
    ids: Sequence[str]


INVARIANTS: tuple[Invariant, ...] = (
    Invariant("I1", "stranded-jobs", "every job that waits will be claimed", statements.STRANDED_JOBS),
    Invariant("I2", "doubled-results", "a job succeeds once, by its newest claim", statements.DOUBLED_RESULTS),
    Invariant("I3", "loose-attempts", "an attempt is open while its token leads", statements.LOOSE_ATTEMPTS),
    Invariant("I4", "untold-ends", "the end of a job is told once, last and truly", statements.UNTOLD_ENDS),
    Invariant("I5", "missed-deliveries", "every event is owed to every endpoint", statements.MISSED_DELIVERIES),
    Invariant("I6", "misplaced-files", "results lie under the token that succeeded", statements.MISPLACED_FILES),
    Invariant("I7", "wrong-counts", "running counts are the numbers of leases", statements.WRONG_COUNTS),
    Invariant("I7", "sleeping-tenants", "no tenant with work is looked past", statements.SLEEPING_TENANTS),
    Invariant("I7", "tenants-behind", "no tenant awake stands where none looks", statements.TENANTS_BEHIND),
    Invariant("I7", "false-queue-rows", "what is in the queue may be claimed", statements.FALSE_QUEUE_ROWS),
    Invariant("I8", "unbalanced-jobs", "the ledger says of each job what the job says", statements.UNBALANCED_JOBS),
    Invariant("I8", "wrong-reserves", "budgets hold back for what goes on, no more", statements.WRONG_RESERVES),
    Invariant("I9", "broken-promises", "a job that was promised is there", statements.BROKEN_PROMISES),
    Invariant("I10", "excess-attempts", "attempts are counted and within their limit", statements.EXCESS_ATTEMPTS),
    Invariant("I11", "overdue-jobs", "leases and retries are seen to in time", statements.OVERDUE_JOBS),
)


def check(sessions: sessionmaker[Session], *, newest: int) -> list[Finding]:
    """Ask every invariant, each in a transaction of its own, of what lives and of the `newest` rows of histories."""
    findings = []
    for invariant in INVARIANTS:
        wanted = {"newest": newest, "limit": _SHOWN, "patience": MAINTENANCE_IS_LATE, "told": _TOLD_FOR}
        needed = {name: wanted[name] for name in invariant.statement.compile().params}
        with sessions.begin() as session:
            findings.append(Finding(invariant, list(session.scalars(invariant.statement, needed))))
    return findings


def keep(session: Session, findings: Sequence[Finding]) -> None:
    """Remember how many break each, for metrics."""
    values = {"names": [f.invariant.name for f in findings], "broken": [len(f.ids) for f in findings]}
    session.execute(statements.KEEP_LOOK, values)


def unsound_files(sessions: sessionmaker[Session], store: ObjectStore, *, count: int) -> list[str]:
    """Read back so many stored files, drawn at random: ids of those whose object is missing or has other bytes.

    Raises StorageUnavailable.
    """
    with sessions.begin() as session:
        files = session.execute(statements.random_files(count)).all()
    return [file.id for file in files if not _is_sound(store, file.key, file.sha256)]


def _is_sound(store: ObjectStore, key: str, sha256: str) -> bool:
    try:
        return hashlib.sha256(store.get(key)).hexdigest() == sha256
    except ObjectMissing:
        return False
