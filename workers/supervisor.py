"""One GPU worker: it hears doorbells, claims fair batches, and works until nothing is runnable.

A handler has its batch computed and may leave the rest of it, storing and committing, to be done while the engine is
busy with the next batch: of one at a time, so that results are never far behind.

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
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from datetime import timedelta
from pathlib import Path

import structlog
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import Session, sessionmaker

from core.errors import StorageUnavailable
from core.jobs import execution, workers
from core.jobs.execution import ClaimedJob
from core.jobs.retry import JobError
from core.jobs.states import JobKind
from core.storage.s3 import ObjectStore
from core.tracing import OFF, Tracing, trace_id
from workers.attempt import PATIENCE, Attempt, EngineStuck, LeaseLost, Patience
from workers.gpu_child import ChildLost, GpuChild
from workers.handlers import distillation, generation, teacher_pairs, training
from workers.inputs import InputMissing
from workers.leases import LeaseKeeper
from workers.spans import Part, Told, tell
from workers.vitals import VitalsReader

log = structlog.get_logger()

_SESSION = timedelta(minutes=5)  # then the doorbell is done, so that Celery sees the worker breathe
_PULSE_SECONDS = 5.0
_SCRATCH = "lockstep-worker-"  # then the process id

HANDLERS: Mapping[str, Callable[[Attempt], Callable[[], None] | None]] = {
    JobKind.TRAINING: training.run,
    JobKind.DISTILLATION: distillation.run,
    JobKind.GENERATION: generation.run,
    JobKind.TEACHER_PAIRS: teacher_pairs.run,
}


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
        self._claimed_part = Part("claim", 0.0, 0.0)
        self._warm: frozenset[str] = frozenset()
        self._model_ids: dict[tuple[str, str | None], str] = {}  # by what the engine calls a model
        self._rest = ThreadPoolExecutor(1, thread_name_prefix="rest")
        self._unfinished: Future[None] | None = None
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
        until = time.monotonic() + _SESSION.total_seconds()
        try:
            while self._may_claim(until) and (jobs := self._claim()):
                taken += len(jobs)
                self._become("busy")
                self._run(jobs)
        except SQLAlchemyError as error:
            log.warning("claim.failed", error=str(error))
        finally:  # whatever happened, the ringer must know that this worker listens again
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
        self._rest.shutdown()
        self._vitals.close()
        self._child.close()
        self._become("stopped")
        self._tracing.close()
        shutil.rmtree(self._folder, ignore_errors=True)

    def _may_claim(self, until: float) -> bool:
        """Whether this session goes on, with an engine: while one starts, jobs could not be canceled in time."""
        if self._draining.is_set() or time.monotonic() > until:
            return False
        try:
            self._child.ensure_running()
        except ChildLost as error:
            log.warning("engine.not_started", error=str(error))
            return False
        return True

    def _claim(self) -> list[ClaimedJob]:
        began_at = time.time()
        with self._sessions.begin() as session:
            jobs = execution.claim(
                session,
                pool=self._pool,
                worker_id=self.worker_id,
                warm=self._warm,
                room=self._batch_size,
                cohort=self._cohort_size,
                lease=self._lease,
            )
        self._claimed_part = Part("claim", began_at, time.time())
        return jobs

    def _run(self, jobs: Sequence[ClaimedJob]) -> None:
        """Have a batch computed, whatever comes of it, and see to the rest of it: now or beside the next one."""
        for job in jobs:
            log.info("attempt.started", **_names(job), kind=job.params.kind, batch=len(jobs))
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
                parts=[self._claimed_part],
            )
            held.callback(self._tell, attempt)
            rest = self._compute(attempt)
            if rest is None:
                return
            attempt.leave_gpu()
            self._finish_unfinished()
            self._unfinished = self._rest.submit(self._do_rest, attempt, rest, held.pop_all())

    def _compute(self, attempt: Attempt) -> Callable[[], None] | None:
        """The part of a batch that needs the engine; what is left of it, if anything."""
        params = attempt.jobs[0].params
        rest = None
        with self._answered(attempt, is_engines=True):
            self._child.ensure_running()
            rest = HANDLERS[params.kind](attempt)
            self._note_warm(attempt)
        return rest

    def _do_rest(self, attempt: Attempt, rest: Callable[[], None], held: ExitStack) -> None:
        try:
            with held, self._answered(attempt, is_engines=False):
                rest()
        except Exception:  # its jobs come back when their leases run out; the next batch must not pay for it
            log.exception("batch.unfinished", jobs=[job.id for job in attempt.jobs])

    def _tell(self, attempt: Attempt) -> None:
        """Say that an attempt is over, in the log and in the traces of its jobs."""
        ended_at = time.time()
        told = Told(self.worker_id, self._pool, len(attempt.jobs))
        for job in attempt.jobs:
            error = attempt.errors.get(job.id)
            log.info("attempt.ended", **_names(job), error=error)
            if self._tracing.is_on:
                tell(self._tracing, told, job, attempt.parts, ended_at=ended_at, error=error)

    def _finish_unfinished(self) -> None:
        """Wait for the rest of the batch before."""
        unfinished, self._unfinished = self._unfinished, None
        if unfinished is not None:
            unfinished.result()

    @contextmanager
    def _answered(self, attempt: Attempt, *, is_engines: bool) -> Iterator[None]:
        """End what is left of a batch with whatever goes wrong. Only a lost lease leaves without a word.

        ``is_engines``: the engine may still be busy with what went wrong, and is to be lost for it.
        """
        try:
            with self._given_up(attempt, is_engines=is_engines):
                yield
        except LeaseLost:
            log.warning("batch.lease_lost", jobs=[job.id for job in attempt.jobs])
            if is_engines:
                self._lose_engine()

    @contextmanager
    def _given_up(self, attempt: Attempt, *, is_engines: bool) -> Iterator[None]:
        try:
            yield
        except EngineStuck:
            self._lose_engine()
            attempt.stop()
        except ChildLost as error:
            self._lose_engine()
            attempt.give_up(JobError("engine-lost", str(error), retryable=True))
        except InputMissing as error:
            attempt.give_up(JobError("input-missing", str(error), retryable=False))
        except StorageUnavailable as error:
            attempt.give_up(JobError(error.code, error.detail, retryable=True))
        except LeaseLost:
            raise
        except Exception:  # the edge of the process: one batch must never take the worker down with it
            log.exception("batch.broken", jobs=[job.id for job in attempt.jobs])
            if is_engines:
                self._lose_engine()
            attempt.give_up(JobError("internal-error", "The worker met an unexpected error.", retryable=True))

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


def _names(job: ClaimedJob) -> dict[str, str | int | None]:
    """What every line about an attempt tells."""
    return {
        "job_id": job.id, "tenant_id": job.tenant_id, "trace_id": trace_id(job.traceparent), "attempt": job.attempt
    }  # fmt: skip


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
