"""One GPU worker: it hears doorbells, claims fair batches, and works until nothing is runnable.

The engine waits for nothing that can be done beside it. While it decodes one batch the next is claimed; a handler
that has its batch computed may leave the rest, storing and committing, to be done while the engine is busy with the
next: of one batch at a time, so that results are never far behind.

The supervisor never imports torch. It holds the leases, the transactions and the clock; the engine lives in a
child process that can be killed at any moment for the price of one attempt.
"""

from __future__ import annotations

import os
import shutil
import socket
import tempfile
import threading
import time
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from datetime import timedelta
from functools import partial
from pathlib import Path

import structlog
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import Session, sessionmaker

from core.jobs import execution, workers
from core.jobs.execution import ClaimedJob
from core.storage.s3 import ObjectStore
from core.tracing import OFF, Tracing
from workers.attempt import PATIENCE, Attempt, Patience
from workers.batch import Batch, Rest, answered, names
from workers.gpu_child import ChildLost, GpuChild
from workers.leases import LeaseKeeper
from workers.spans import Part, Told, tell
from workers.vitals import VitalsReader

log = structlog.get_logger()

_SESSION = timedelta(minutes=5)  # then the doorbell is done, so that Celery sees the worker breathe
_PULSE_SECONDS = 5.0
_SCRATCH = "lockstep-worker-"  # then the process id


class Supervisor:
    """The state of one worker process. ``serve`` runs in one thread; ``drain`` may come from any."""

    def __init__(
        self,
        *,
        sessions: sessionmaker[Session],
        store: ObjectStore,
        child: GpuChild,
        pool: str,
        lease: timedelta,
        heartbeat: timedelta,
        batch_size: int,
        cohort_size: int,
        patience: Patience = PATIENCE,
        tracing: Tracing = OFF,
    ) -> None:
        self._sessions = sessions
        self._store = store
        self._child = child
        self._pool = pool
        self._lease = lease
        self._heartbeat = heartbeat
        self._batch_size = batch_size
        self._cohort_size = cohort_size
        self._patience = patience
        self._tracing = tracing
        self._warm: frozenset[str] = frozenset()
        self._model_ids: dict[tuple[str, str | None], str] = {}  # by what the engine calls a model
        self._claimer = ThreadPoolExecutor(1, thread_name_prefix="claimer")
        self._ahead: Future[Batch | None] | None = None
        self._rest = ThreadPoolExecutor(1, thread_name_prefix="rest")
        self._unfinished: Future[None] | None = None
        self._until = self._left_gpu_at = 0.0  # on the monotonic clock
        self._state = "starting"
        self._draining = threading.Event()
        self._folder = _scratch_folder()
        self._vitals = VitalsReader(lambda: child.gpu)
        self._pulse = threading.Thread(target=self._beat_until_drained, name="pulse", daemon=True)
        with sessions.begin() as session:
            self.worker_id = workers.register(session, pool=pool, host=socket.gethostname(), pid=os.getpid())

    def start(self) -> None:
        """Bring the engine up and say that the worker is there."""
        self._child.ensure_running()
        self._vitals.start()
        self._become("idle")
        self._pulse.start()
        log.info("worker.ready", worker=self.worker_id, pool=self._pool, device=self._child.device_name)

    def serve(self) -> int:
        """Answer a doorbell: claim and run batches until nothing is runnable; returns how many jobs were taken."""
        taken = 0
        self._until = time.monotonic() + _SESSION.total_seconds()
        try:
            while batch := self._next():
                taken += len(batch.attempt.jobs)
                self._run(batch)
        except SQLAlchemyError as error:
            log.warning("claim.failed", error=str(error))
        finally:  # whatever happened, the ringer must know that this worker listens again
            self._give_back_ahead()
            self._finish_unfinished()
            self._become("draining" if self._draining.is_set() else "idle")
        return taken

    def drain(self) -> None:
        """Claim nothing more; what is in hand is given back, a training or distillation with a checkpoint."""
        self._draining.set()

    def close(self) -> None:
        """Leave: the engine goes, the row says so, the scratch folder is removed."""
        self.drain()
        self._finish_unfinished()
        self._claimer.shutdown()
        self._rest.shutdown()
        self._vitals.close()
        self._child.close()
        self._become("stopped")
        self._tracing.close()
        shutil.rmtree(self._folder, ignore_errors=True)

    def _next(self) -> Batch | None:
        """What was claimed ahead, or else what can be claimed now: more may have come since nothing was found."""
        ahead, self._ahead = self._ahead, None
        batch = None if ahead is None else ahead.result()
        return batch or (self._take(self._warm) if self._goes_on() and self._has_engine() else None)

    def _goes_on(self) -> bool:
        """Whether more is to be claimed in this session."""
        return not self._draining.is_set() and time.monotonic() < self._until

    def _has_engine(self) -> bool:
        """Whether the engine runs, now if not before: while one starts, jobs could not be canceled in time."""
        try:
            self._child.ensure_running()
        except ChildLost as error:
            log.warning("engine.not_started", error=str(error))
            return False
        return True

    def _claim_ahead(self, model_id: str) -> None:
        """Begin to claim and prepare what comes after a batch of ``model_id``, once: a last step may be done again.

        While the batch before waits for the store, others had better draw what comes next.
        """
        if self._ahead is None and self._goes_on() and (self._unfinished is None or self._unfinished.done()):
            self._ahead = self._claimer.submit(self._take, self._warm | {model_id})

    def _mind_ahead(self) -> None:
        """Let what was claimed ahead be canceled or paused while it waits for the engine."""
        if self._ahead is not None and self._ahead.done() and not self._ahead.exception():
            batch = self._ahead.result()
            if batch is not None:
                with answered(batch.attempt):
                    batch.attempt.let_go()

    def _give_back_ahead(self) -> None:
        """Leave nothing that was claimed ahead behind."""
        ahead, self._ahead = self._ahead, None
        try:
            batch = None if ahead is None else ahead.result()
        except SQLAlchemyError as error:
            log.warning("claim.failed", error=str(error))
        else:
            if batch is not None:
                batch.give_back()

    def _take(self, warm: frozenset[str]) -> Batch | None:
        """Claim a batch and fetch what it needs."""
        began_at = time.time()
        jobs = self._claim(warm)
        if not jobs:
            return None
        claimed = Part("claim", began_at, time.time())
        if self._state != "busy":
            self._become("busy")
        batch = self._open(jobs, claimed)
        batch.prepare()
        return batch

    def _claim(self, warm: frozenset[str]) -> list[ClaimedJob]:
        with self._sessions.begin() as session:
            return execution.claim(
                session,
                pool=self._pool,
                worker_id=self.worker_id,
                warm=warm,
                room=self._batch_size,
                cohort=self._cohort_size,
                lease=self._lease,
            )

    def _open(self, jobs: Sequence[ClaimedJob], claimed: Part) -> Batch:
        for job in jobs:
            log.info("attempt.started", **names(job), kind=job.params.kind, batch=len(jobs))
        with ExitStack() as held:
            scratch = held.enter_context(tempfile.TemporaryDirectory(dir=self._folder, ignore_cleanup_errors=True))
            keeper = held.enter_context(LeaseKeeper(self._sessions, jobs, lease=self._lease, every=self._heartbeat))
            attempt = Attempt(
                jobs=jobs,
                child=self._child,
                keeper=keeper,
                sessions=self._sessions,
                store=self._store,
                scratch=Path(scratch),
                is_draining=self._draining.is_set,
                patience=self._patience,
                parts=[claimed],
                on_last_step=partial(self._claim_ahead, jobs[0].params.model_id),
                while_listening=self._mind_ahead,
            )
            held.callback(self._tell, attempt)
            return Batch(attempt, held.pop_all())

    def _run(self, batch: Batch) -> None:
        """Have a batch computed, whatever comes of it, and see to the rest of it: now or beside the next one."""
        with batch.held as held:
            rest = self._compute(batch)
            self._left_gpu_at = time.monotonic()
            if rest is None:
                return
            batch.held = held.pop_all()
        batch.attempt.leave_gpu()
        self._finish_unfinished()
        self._left_gpu_at = time.monotonic()  # nobody pays for that wait
        self._unfinished = self._rest.submit(batch.finish, rest)

    def _compute(self, batch: Batch) -> Rest | None:
        """The part of a batch that needs the engine; what is left of it, if anything."""
        if batch.compute is None:
            return None
        rest = None
        with answered(batch.attempt, self._lose_engine):
            batch.attempt.enter_gpu(self._left_gpu_at)
            batch.attempt.let_go()
            # Without an engine, lost with the batch before: until another is up, nothing could be canceled.
            if self._draining.is_set() or self._child.pid is None:
                batch.attempt.stop()
            if not batch.attempt.is_ours():
                return None
            rest = batch.compute()
            self._note_warm(batch.attempt)
        return rest

    def _tell(self, attempt: Attempt) -> None:
        """Say that an attempt is over, in the log and in the traces of its jobs."""
        ended_at = time.time()
        told = Told(self.worker_id, self._pool, len(attempt.jobs))
        for job in attempt.jobs:
            error = attempt.errors.get(job.id)
            log.info("attempt.ended", **names(job), error=error)
            if self._tracing.is_on:
                tell(self._tracing, told, job, attempt.parts, ended_at=ended_at, error=error)

    def _finish_unfinished(self) -> None:
        """Wait for the rest of the batch before."""
        unfinished, self._unfinished = self._unfinished, None
        if unfinished is not None:
            unfinished.result()

    def _note_warm(self, attempt: Attempt) -> None:
        """Remember what the engine holds, by the ids that claims know."""
        if attempt.asked_of is None:  # the engine was not asked, and holds what it held
            return
        self._model_ids[attempt.asked_of] = attempt.jobs[0].params.model_id
        self._warm = frozenset(self._model_ids[named] for named in attempt.warm if named in self._model_ids)

    def _lose_engine(self) -> None:
        self._child.kill()
        self._warm = frozenset()

    def _become(self, state: str) -> None:
        self._state = state
        self._beat()

    def _beat(self) -> None:
        try:
            with self._sessions.begin() as session:
                workers.beat(
                    session,
                    self.worker_id,
                    state=self._state,
                    device=self._child.device_name,
                    warm_models=self._warm,
                    vitals=self._vitals.latest,
                )
        except SQLAlchemyError as error:
            log.warning("heartbeat.failed", error=str(error))

    def _beat_until_drained(self) -> None:
        while not self._draining.wait(_PULSE_SECONDS):
            self._beat()


def _scratch_folder() -> Path:
    """A folder for this process's files, named after it, so that one that was killed is cleaned up after."""
    for folder in Path(tempfile.gettempdir()).glob(f"{_SCRATCH}*"):
        owner = folder.name.removeprefix(_SCRATCH).partition("-")[0]
        if owner.isdecimal() and not _is_alive(int(owner)):
            shutil.rmtree(folder, ignore_errors=True)
    return Path(tempfile.mkdtemp(prefix=f"{_SCRATCH}{os.getpid()}-"))


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
