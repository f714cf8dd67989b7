"""Throwing away what is old: answers, quotes, sessions, uploads, events that everybody heard, ended jobs, their files.

A batch at a time, each a short transaction of its own, with a rest after it: claims and finishes go on beside it.
Objects go after their rows; what cannot be removed now is an orphan, and the sweeper's.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import structlog
from sqlalchemy import TextClause
from sqlalchemy.orm import Session, sessionmaker

from core.config import Settings
from core.errors import StorageUnavailable
from core.storage.s3 import ObjectStore
from workers.maintain import statements

_KEYS_KEPT = timedelta(hours=24)
_QUOTES_KEPT = timedelta(hours=24)  # after they have expired, so that whoever comes late learns why
_PAIRS_KEPT = timedelta(hours=24)  # after their distillation has ended
_TRIES_KEPT = timedelta(days=1)  # longer than they count
_BATCH = 500  # rows of one transaction, so that none holds locks for long
_REST = 1.0  # times a batch's own time: at most half of one connection's time goes into this
_PASS_SECONDS = 50.0  # then the other tables have their turn

log = structlog.get_logger()


@dataclass(frozen=True)
class Kept:
    """How many days things are kept of a tenant that has no times of its own; 0: for ever."""

    jobs: int
    events: int
    files: int

    @classmethod
    def of(cls, settings: Settings) -> Kept:
        """As the settings have it."""
        return cls(settings.keep_jobs_days, settings.keep_events_days, settings.keep_files_days)


@dataclass(frozen=True)
class CleanCounts:
    """How many rows went."""

    idempotency_keys: int = 0
    events: int = 0
    jobs: int = 0
    files: int = 0
    sign_ins: int = 0
    quotes: int = 0
    uploads: int = 0


class Cleaner:
    """One pass after another; ``sleep`` waits for so many seconds."""

    def __init__(
        self,
        sessions: sessionmaker[Session],
        store: ObjectStore,
        kept: Kept,
        *,
        batch: int = _BATCH,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._sessions = sessions
        self._store = store
        self._kept = kept
        self._batch = batch
        self._sleep = sleep

    def run_once(self) -> CleanCounts:
        """Delete all that is old, as far as the time of a pass goes."""
        return CleanCounts(
            idempotency_keys=self._delete(statements.DELETE_OLD_KEYS, age=_KEYS_KEPT),
            events=self._delete(statements.DELETE_OLD_EVENTS, days=self._kept.events),
            jobs=self._delete(statements.DELETE_OLD_JOBS, days=self._kept.jobs),
            files=self._delete(statements.DELETE_OLD_FILES, self._remove, days=self._kept.files)
            + self._delete(statements.DELETE_IDLE_PAIRS, self._remove, age=_PAIRS_KEPT),
            sign_ins=self._delete(statements.DELETE_ENDED_SESSIONS)
            + self._delete(statements.DELETE_OLD_INVITATIONS)
            + self._delete(statements.DELETE_OLD_TRIES, age=_TRIES_KEPT),
            quotes=self._delete(statements.DELETE_OLD_QUOTES, age=_QUOTES_KEPT),
            uploads=self._delete(statements.DELETE_OLD_UPLOADS, self._remove_under),
        )

    def _delete(
        self, statement: TextClause, then: Callable[[Sequence[Any]], None] = lambda _: None, **values: Any
    ) -> int:
        total, until = 0, time.monotonic() + _PASS_SECONDS
        while True:
            began = time.monotonic()
            with self._sessions.begin() as session:
                deleted = session.execute(statement, {**values, "limit": self._batch}).scalars().all()
            then(deleted)
            total += len(deleted)
            took = time.monotonic() - began
            if len(deleted) < self._batch or began + took > until:
                return total
            self._sleep(_REST * took)

    def _remove_under(self, prefixes: Sequence[str]) -> None:
        try:
            keys = [key for prefix in prefixes for key in self._store.keys_under(prefix)]
        except StorageUnavailable as error:
            log.warning("objects.left", count=len(prefixes), error=str(error))
        else:
            self._remove(keys)

    def _remove(self, keys: Sequence[str]) -> None:
        try:
            self._store.delete_many(keys)
        except StorageUnavailable as error:
            log.warning("objects.left", count=len(keys), error=str(error))
