"""Waking idle workers: one doorbell for each that waits while its pool has work for it.

A doorbell is outstanding until the worker says something after it (it was heard, and found nothing or is done), or
until it must be lost. So nobody is woken twice for one piece of news, and an emptied broker costs a few seconds.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlalchemy.orm import Session, sessionmaker

from core.jobs import workers
from core.jobs.workers import IdleWorker

_LOST_AFTER = timedelta(seconds=5)


@dataclass(frozen=True)
class RingCounts:
    """How many doorbells a pass sent."""

    rung: int = 0


class Ringer:
    """Remembers who was rung. ``ring(pool, times)`` sends doorbells and raises when the broker does not answer."""

    def __init__(self, sessions: sessionmaker[Session], ring: Callable[[str, int], None]) -> None:
        self._sessions = sessions
        self._ring = ring
        self._rung_at: dict[str, datetime] = {}  # by worker, on the database's clock

    def run_once(self) -> RingCounts:
        """Ring for every worker that waits and was not rung."""
        with self._sessions.begin() as session:
            idle = workers.idle_with_work(session)
        waiting: defaultdict[str, list[IdleWorker]] = defaultdict(list)
        for worker in self._unrung(idle):
            waiting[worker.pool].append(worker)
        for pool, unrung in waiting.items():
            self._ring(pool, len(unrung))
            self._rung_at.update({worker.worker_id: worker.now for worker in unrung})
        return RingCounts(rung=sum(map(len, waiting.values())))

    def _unrung(self, idle: Iterable[IdleWorker]) -> list[IdleWorker]:
        return [worker for worker in idle if not self._is_outstanding(worker)]

    def _is_outstanding(self, worker: IdleWorker) -> bool:
        rung_at = self._rung_at.get(worker.worker_id)
        return rung_at is not None and worker.heartbeat_at <= rung_at and worker.now < rung_at + _LOST_AFTER
