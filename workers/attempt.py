"""A claimed batch in hand: its leases, its engine, its scratch folder, and the ways it can end.

Handlers say what to ask of the engine and what to keep of the answer; what is the same for every kind of job
(cancels, drains, lost leases, retries of a commit) lives here.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, NoReturn, TypeVar

import structlog
from sqlalchemy.exc import InterfaceError, InternalError, OperationalError
from sqlalchemy.orm import Session, sessionmaker

from core.errors import StorageUnavailable
from core.jobs import execution
from core.jobs.execution import ClaimedJob, Ending, Return
from core.jobs.params import GenerationParams
from core.jobs.retry import JobError, backoff
from core.jobs.states import AttemptOutcome, JobStage, JobState
from core.storage.s3 import ObjectStore
from workers.gpu_child import Child, ChildLost
from workers.leases import LeaseKeeper
from workers.protocol import Generate, LastWord, Loading, Progress, Ready, Stop, ToParent, Train, Warm, Work
from workers.spans import Part

log = structlog.get_logger()

T = TypeVar("T")

_ENGINE = "engine"  # the part of an attempt that is a conversation with it
_LISTEN_SECONDS = 0.2
_REPORT_SECONDS = 0.5  # progress of a job is told at most this often
_RETRY_SECONDS = 2.0  # between tries to store or commit what is finished
_STORE_SECONDS = 900.0  # a store that refuses for longer is not down, it says no
_OUTAGES = (OperationalError, InterfaceError, InternalError)  # Postgres is away, or read-only after a failover


class EngineStuck(Exception):
    """The engine did not give way in time: it is to be killed, and the work, which did no wrong, given back."""


class LeaseLost(Exception):
    """None of the batch is ours any more: write nothing, stop the engine."""


@dataclass(frozen=True)
class Patience:
    """How long the engine may be silent before it counts as hung, in seconds."""

    working: float = 600.0  # one step, on the slowest device we know of
    loading: float = 1800.0  # a model that comes from a hub
    stopping: float = 8.0  # after it was asked to stop what nobody wants, or what it has not begun: models still load
    giving_way: float = 300.0  # after it was asked to stop for later: the step in hand, then a checkpoint


PATIENCE = Patience()


@dataclass
class Attempt:
    """One batch, from the claim to its end."""

    jobs: Sequence[ClaimedJob]
    child: Child
    keeper: LeaseKeeper
    sessions: sessionmaker[Session]
    store: ObjectStore
    scratch: Path
    is_draining: Callable[[], bool]
    on_last_step: Callable[[], None] = lambda: None  # of pictures: the engine has them to decode yet, and is soon free
    while_listening: Callable[[], None] = lambda: None  # to the engine, several times a second
    jitter: Callable[[], float] = random.random
    patience: Patience = PATIENCE
    checkpoints: dict[str, str] = field(default_factory=dict)  # by job: the key of what the next attempt goes on from
    timings: dict[str, float] = field(default_factory=dict)  # seconds of each part of the work
    parts: list[Part] = field(default_factory=list)  # when each was
    errors: dict[str, str] = field(default_factory=dict)  # by job: the code of what ended it
    asked_of: tuple[str, str | None] | None = None  # the model, as the engine calls it
    warm: tuple[tuple[str, str | None], ...] = ()  # what the engine last said it holds (`protocol.Warm`)
    _began_at: float = field(default_factory=time.monotonic)
    _accounted_at: float = field(default_factory=time.monotonic)
    _off_gpu: bool = False
    _share: float = 0.0  # of the seconds since the claim, for each job that has not ended
    _ended: set[str] = field(default_factory=set)
    _reported_at: dict[str, float] = field(default_factory=dict)  # by request
    _metrics: dict[str, Mapping[str, float]] = field(default_factory=dict)  # by request

    @property
    def request_id(self) -> str:
        """The name under which the engine is asked: of this attempt, so that no other one's answer is taken for it."""
        return f"batch:{self.name(self.jobs[0])}"

    def name(self, job: ClaimedJob) -> str:
        """The name of one job of the batch, where the engine tells them apart."""
        return f"{job.id}:{job.token}"

    def folder(self, job: ClaimedJob) -> Path:
        """A scratch folder of one job's own."""
        path = self.scratch / job.id
        path.mkdir(exist_ok=True)
        return path

    def converse(self, request: Work) -> Iterator[ToParent]:
        """Send ``request`` and yield what the engine says, up to its last word.

        Progress is written as it comes. What was canceled ends at once, whatever the engine is busy with, and the
        engine is asked to stop it; unless the work is over in seconds, also what was paused or is to make way, and
        everything when the worker drains. Raises LeaseLost once nothing of the batch is
        ours, EngineStuck when it does not stop for that, and ChildLost, also for an engine that is silent for too long
        or answers something else.
        """
        began_at = time.time()
        try:
            yield from self._heard(request)
        finally:
            self.parts.append(Part(_ENGINE, began_at, time.time()))

    def _heard(self, request: Work) -> Iterator[ToParent]:
        self.asked_of = (request.model, request.student if isinstance(request, Generate) else None)
        self.child.send(request)
        parts = self._parts(request)
        going_on = set(parts)
        limit, heard_at = self.patience.loading, time.monotonic()
        while True:
            message = self.child.receive(_LISTEN_SECONDS)
            self.while_listening()
            if not self.is_ours() and not self._has_ended():
                raise LeaseLost
            self._end_canceled()
            for name in [name for name in going_on if self._should_stop(request, parts[name])]:
                self.child.send(Stop(name))
                going_on.remove(name)
                heard_at = time.monotonic()
            asked_to_stop = not going_on
            if asked_to_stop:
                has_begun = bool(self._metrics)
                limit = self.patience.giving_way if has_begun and self.is_wanted() else self.patience.stopping
            if message is None:
                if time.monotonic() - heard_at > limit:
                    self._despair(limit, asked_to_stop=asked_to_stop)
                continue
            if isinstance(message, Ready) or message.request_id not in {request.request_id, *parts}:
                self._disown(f"The engine answered something else: {type(message).__name__}.")
            if not asked_to_stop:
                limit, heard_at = self._limit_after(message), time.monotonic()
            if not self._takes_note_of(message, parts):
                yield message
            if isinstance(message, LastWord) and message.request_id == request.request_id:
                return

    def _end_canceled(self) -> None:
        """End what was canceled: nobody waits for the engine to hear of it."""
        for job in self.jobs:
            if self.keeper.is_held(job.id) and self.keeper.cancel_requested(job.id):
                self.commit(partial(self._write_canceled, job))

    def _write_canceled(self, job: ClaimedJob, session: Session) -> set[str]:
        return execution.finish(session, [Ending(job.id, job.token, JobState.CANCELED, self.gpu_seconds())])

    def _parts(self, request: Work) -> Mapping[str, Sequence[ClaimedJob]]:
        """What reports and can be stopped by a name of its own: each training of a cohort, all else as a whole."""
        if not isinstance(request, Train):
            return {request.request_id: self.jobs}
        asked = {training.request_id for training in request.trainings}
        return {name: [job] for job in self.jobs if (name := self.name(job)) in asked}

    def _takes_note_of(self, message: ToParent, parts: Mapping[str, Sequence[ClaimedJob]]) -> bool:
        """Note how the work is going; False for what is the handler's business."""
        match message:
            case Loading():
                self.report(self.jobs, stage=JobStage.LOADING)
            case Warm():
                self.warm = message.models
            case Progress():
                self._tell_progress(message, parts[message.request_id])
                if message.step == message.steps and isinstance(self.jobs[0].params, GenerationParams):
                    self.on_last_step()
            case _:
                return False
        return True

    def _limit_after(self, message: ToParent) -> float:
        return self.patience.loading if isinstance(message, Loading) else self.patience.working

    def _despair(self, limit: float, *, asked_to_stop: bool) -> NoReturn:
        """Wait no longer; work that is only to be done later is not to blame for an engine that did not stop."""
        if asked_to_stop and self.is_wanted():
            raise EngineStuck
        self._disown(f"The engine was silent for {limit:.0f} s.")

    def _disown(self, why: str) -> NoReturn:
        self.child.kill()
        raise ChildLost(why)

    def is_ours(self) -> bool:
        """Whether any job of the batch is still ours."""
        return any(self.keeper.is_held(job.id) for job in self.jobs)

    def _has_ended(self) -> bool:
        """Whether every job has ended by our hand, so that only the engine's last word is still to come."""
        return self._ended == {job.id for job in self.jobs}

    def is_wanted(self, *jobs: ClaimedJob) -> bool:
        """Whether any of these jobs, or of the batch, is still ours and not canceled."""
        return any(
            self.keeper.is_held(job.id) and not self.keeper.cancel_requested(job.id) for job in jobs or self.jobs
        )

    def _should_stop(self, request: Work, jobs: Sequence[ClaimedJob]) -> bool:
        # A generation is over in seconds, so a drain lets it finish. Everything else can take minutes and is given
        # back: trainings and distillations with a checkpoint, a shard of pairs (cut to minutes) to be drawn again.
        gives_way = not isinstance(request, Generate)
        is_to_rest = any(self.keeper.pause_requested(job.id) or self.keeper.yield_requested(job.id) for job in jobs)
        return not self.is_wanted(*jobs) or (gives_way and (self.is_draining() or is_to_rest))

    def _tell_progress(self, message: Progress, jobs: Sequence[ClaimedJob]) -> None:
        name, now = message.request_id, time.monotonic()
        self._metrics[name] = message.metrics or self._metrics.get(name, {})  # not every step has any
        told_at = self._reported_at.get(name)
        # Of pictures that are drawn at once nothing is told: they are there.
        is_brief = told_at is None and isinstance(jobs[0].params, GenerationParams)
        if now - (told_at or self._began_at) < _REPORT_SECONDS and (is_brief or message.step < message.steps):
            return
        self._reported_at[name] = now
        progress = {"step": message.step, "steps": message.steps, **self._metrics[name]}
        self.report(jobs, stage=JobStage.WORKING, progress=progress)

    def report(
        self, jobs: Sequence[ClaimedJob], *, stage: JobStage | None = None, progress: Mapping[str, Any] | None = None
    ) -> None:
        """Write how far jobs of the batch are, as `tell` does."""

        def write(session: Session) -> None:
            for job in sorted(jobs, key=lambda job: job.id):  # everybody locks in this order
                if self.keeper.is_held(job.id):
                    execution.report(session, job, stage=stage, progress=progress)

        self.tell(write)

    def tell(self, write: Callable[[Session], T]) -> T | None:
        """Run ``write`` in one transaction; if the database does not answer, None comes back and the news is lost."""
        try:
            with self.sessions.begin() as session:
                return write(session)
        except _OUTAGES as error:
            log.warning("report.failed", error=str(error))
            return None

    def gpu_seconds(self) -> float:
        """Seconds since the claim, shared evenly by those of the batch that had not ended."""
        if self._off_gpu:
            return self._share
        now = time.monotonic()
        self._share += (now - self._accounted_at) / max(1, len(self.jobs) - len(self._ended))
        self._accounted_at = now
        return self._share

    def enter_gpu(self, free_since: float) -> None:
        """Account for the GPU from the claim on, or from ``free_since``, on the monotonic clock, if that was later."""
        if free_since > self._began_at:
            self._accounted_at, self._share = max(self._accounted_at, free_since), 0.0

    def leave_gpu(self) -> None:
        """Account for the GPU up to now, and no more: what is left of the work needs none."""
        self.gpu_seconds()
        self._off_gpu = True

    @contextmanager
    def timed(self, part: str) -> Iterator[None]:
        """Add a block's seconds to the timings."""
        started, began_at = time.monotonic(), time.time()
        try:
            yield
        finally:
            self.timings[part] = self.timings.get(part, 0.0) + time.monotonic() - started
            self.parts.append(Part(part, began_at, time.time()))

    def note_engines(self, seconds: Mapping[str, float], parts: Iterable[tuple[str, float, float]]) -> None:
        """Take down what the engine tells of its part of the work."""
        self.timings |= seconds
        self.parts += [Part(name, began_at, began_at + took, within=_ENGINE) for name, began_at, took in parts]

    def persist(self, work: Callable[[], T]) -> T:
        """Do ``work`` (an upload), waiting out a store that does not answer while the result is ours and wanted.

        Raises StorageUnavailable after a quarter of an hour, when the worker drains, or when nobody wants the result.
        """
        give_up_at = time.monotonic() + _STORE_SECONDS
        while True:
            try:
                return work()
            except StorageUnavailable as error:
                log.warning("store.unavailable", error=str(error))
                self.report(self.jobs, stage=JobStage.UPLOADING)
                if not self.is_ours():
                    raise LeaseLost from error
                if time.monotonic() > give_up_at or self.is_draining() or not self.is_wanted():
                    raise
                time.sleep(_RETRY_SECONDS)

    def commit(self, write: Callable[[Session], set[str]]) -> set[str]:
        """Run ``write`` in one transaction until it is committed or no lease is ours; release and return its ids.

        When a commit's answer is lost, the tokens tell whether it happened: writing again finds no row of ours.
        """
        began_at = time.time()
        while True:
            try:
                with self.sessions.begin() as session:
                    done = write(session)
            except _OUTAGES as error:
                log.warning("commit.unknown", error=str(error))
                if not self.is_ours():
                    raise LeaseLost from error
                time.sleep(_RETRY_SECONDS)
            else:
                self.parts.append(Part("finish", began_at, time.time()))
                self.gpu_seconds()  # up to now they took part
                self._ended |= done
                self.keeper.release(done)
                return done

    def end(self, job: ClaimedJob, error: JobError) -> None:
        """End one job that failed: back to the queue when another attempt may help, else failed for good."""
        self.errors[job.id] = error.code
        delay = backoff(error, attempt=job.attempt, max_attempts=job.max_attempts, jitter=self.jitter)

        def write(session: Session) -> set[str]:
            if self.keeper.cancel_requested(job.id):
                return self._write_canceled(job, session)
            if delay is None:
                ending = Ending(job.id, job.token, JobState.FAILED, self.gpu_seconds(), error=error)
                return execution.finish(session, [ending])
            back = Return(job.id, job.token, AttemptOutcome.FAILED, self.gpu_seconds(), delay=delay, error=error)
            return execution.requeue(session, [back])

        self.commit(write)

    def give_up(self, error: JobError) -> None:
        """End every job of the batch that is still ours with ``error``."""
        for job in self.jobs:
            if self.keeper.is_held(job.id):
                self.end(job, error)

    def let_go(self) -> None:
        """While the work waits for the engine: end what was canceled, give back what was paused or is to make way."""
        self._end_canceled()
        resting = [
            job
            for job in self.jobs
            if self.keeper.is_held(job.id)
            and (self.keeper.pause_requested(job.id) or self.keeper.yield_requested(job.id))
        ]
        if resting:
            self.stop(*resting)

    def stop(self, *jobs: ClaimedJob, checkpoint: Mapping[str, Any] | None = None) -> set[str]:
        """Give these jobs, or the batch, back unharmed: not counted as an attempt; what was canceled ends instead.

        ``checkpoint`` is where a single one goes on. Returns the ids that were still ours.
        """

        def write(session: Session) -> set[str]:
            if checkpoint is not None:
                execution.report(session, jobs[0], checkpoint=checkpoint)
            return execution.requeue(
                session,
                [Return(job.id, job.token, AttemptOutcome.RETURNED, self.gpu_seconds()) for job in jobs or self.jobs],
            )

        return self.commit(write)
