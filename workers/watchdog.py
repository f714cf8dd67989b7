"""Ending a worker that could work and hears no doorbell.

A Celery worker may keep its connection and consume nothing for ever, as after an acknowledgement that failed while the
broker was away (measured in 5.7). Nobody would notice: it beats, and its pool has work. So it looks itself whether it
should have been woken long ago, and if the broker answers all the while, it leaves; whoever runs it starts it again.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from datetime import timedelta

import structlog
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import Session, sessionmaker

from core.jobs import workers

log = structlog.get_logger()

_LOOK_EVERY = timedelta(seconds=10)
_DEAF_AFTER = timedelta(seconds=60)


class Watchdog:
    """``broker_answers`` says whether a doorbell could be heard, ``leave`` ends it, ``clock`` tells seconds."""

    def __init__(
        self,
        sessions: sessionmaker[Session],
        worker_id: str,
        *,
        broker_answers: Callable[[], bool],
        leave: Callable[[], None],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._sessions = sessions
        self._worker_id = worker_id
        self._broker_answers = broker_answers
        self._leave = leave
        self._clock = clock
        self._deaf_since: float | None = None

    def look_once(self) -> None:
        """Leave if the worker has waited for so long while its pool had work for it."""
        if not self._should_have_been_woken():
            self._deaf_since = None
            return
        now = self._clock()
        if self._deaf_since is None:
            self._deaf_since = now
        elif now - self._deaf_since >= _DEAF_AFTER.total_seconds():
            log.error("worker.deaf", worker=self._worker_id, seconds=round(now - self._deaf_since))
            self._leave()

    def start(self) -> None:
        """Look again and again, in a thread that ends with the process."""
        threading.Thread(target=self._look_for_ever, name="watchdog", daemon=True).start()

    def _look_for_ever(self) -> None:
        while True:
            time.sleep(_LOOK_EVERY.total_seconds())
            self.look_once()

    def _should_have_been_woken(self) -> bool:
        try:
            with self._sessions.begin() as session:
                waiting = {worker.worker_id for worker in workers.idle_with_work(session)}
        except SQLAlchemyError:
            return False
        return self._worker_id in waiting and self._broker_answers()
