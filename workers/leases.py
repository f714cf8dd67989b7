"""Keeping the leases of a batch: a thread that renews them, and hears when one is lost, canceled or paused."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping, Sequence
from datetime import timedelta
from functools import partial
from types import TracebackType

import structlog
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import Session, sessionmaker

from core.jobs import execution
from core.jobs.execution import ClaimedJob, Held

_LOOK_SECONDS = 0.5  # a cancel or a pause is seen within this

log = structlog.get_logger()


class LeaseKeeper:
    """Renews until left. A job is ours while ``is_held``; its worker must stop writing when it is not.

    When Postgres does not answer, the lease is taken for lost once it would have run out: the reaper, on the
    database's clock, gives the job to somebody else no sooner than that.
    """

    def __init__(
        self,
        sessions: sessionmaker[Session],
        jobs: Sequence[ClaimedJob],
        *,
        lease: timedelta,
        every: timedelta,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._sessions = sessions
        self._jobs = {job.id: job for job in jobs}
        self._lease = lease
        self._every = every.total_seconds()
        self._monotonic = monotonic
        self._renewed_at = monotonic()
        self._lost: set[str] = set()
        self._canceled: set[str] = set()
        self._paused: set[str] = set()
        self._yielding: set[str] = set()
        self._released: set[str] = set()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._keep, name="lease-keeper", daemon=True)

    def __enter__(self) -> LeaseKeeper:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()
        self._thread.join()

    def is_held(self, job_id: str) -> bool:
        """Whether the job is still ours, as far as anybody can know."""
        expired = self._monotonic() - self._renewed_at > self._lease.total_seconds()
        return job_id not in self._lost and job_id not in self._released and not expired

    def cancel_requested(self, job_id: str) -> bool:
        """Whether somebody asked for the job to end."""
        return job_id in self._canceled

    def pause_requested(self, job_id: str) -> bool:
        """Whether somebody asked for the job to be given back, and has not resumed it since."""
        return job_id in self._paused

    def yield_requested(self, job_id: str) -> bool:
        """Whether the job is to make way for others, and to go on later."""
        return job_id in self._yielding

    def release(self, job_ids: set[str]) -> None:
        """Stop renewing jobs that were ended or given back."""
        self._released |= job_ids

    def renew_once(self) -> None:
        """Renew every lease that is still ours."""
        asked_at = self._monotonic()
        self._hear(partial(execution.renew, lease=self._lease))
        self._renewed_at = asked_at

    def look_once(self) -> None:
        """See whether anything was lost, canceled or paused, without writing."""
        self._hear(execution.look)

    def _hear(self, ask: Callable[[Session, list[ClaimedJob]], Mapping[int, Held]]) -> None:
        ours = [job for job in self._jobs.values() if self.is_held(job.id)]
        if not ours:
            return
        with self._sessions.begin() as session:
            held = ask(session, ours)
        for job in ours:
            if job.token not in held:
                self._lost.add(job.id)
                continue
            if held[job.token].cancel_requested:
                self._canceled.add(job.id)
            if held[job.token].yield_requested:
                self._yielding.add(job.id)
            if held[job.token].pause_requested:
                self._paused.add(job.id)
            else:  # resumed
                self._paused.discard(job.id)

    def _keep(self) -> None:
        while not self._stop.wait(min(self._every, _LOOK_SECONDS)):
            try:
                if self._monotonic() - self._renewed_at >= self._every:
                    self.renew_once()
                else:
                    self.look_once()
            except SQLAlchemyError as error:
                log.warning("lease.renewal_failed", error=str(error))
