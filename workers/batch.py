"""A claimed batch on its way through a worker: prepared, computed by the engine, and what is left to be done after.

Only the middle needs the engine, so a worker prepares the next batch and finishes the last one beside it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

import structlog

from core.errors import StorageUnavailable
from core.jobs.execution import ClaimedJob
from core.jobs.retry import JobError
from core.jobs.states import JobKind
from core.tracing import trace_id
from workers.attempt import Attempt, EngineStuck, LeaseLost
from workers.gpu_child import ChildLost
from workers.handlers import distillation, generation, teacher_pairs, training
from workers.inputs import InputMissing

log = structlog.get_logger()

Rest = Callable[[], None]
"""Stores and ends what was computed."""
Compute = Callable[[], Rest | None]
"""Has the engine do its work."""

PREPARE: Mapping[str, Callable[[Attempt], Compute | None]] = {
    JobKind.TRAINING: training.prepare,
    JobKind.DISTILLATION: distillation.prepare,
    JobKind.GENERATION: generation.prepare,
    JobKind.TEACHER_PAIRS: teacher_pairs.prepare,
}
"""What is fetched for a batch of each kind; None where nothing of it is left to compute."""


@dataclass
class Batch:
    """An attempt, with all that is ``held`` until it is over: its leases, its scratch folder, what tells of its end."""

    attempt: Attempt
    held: ExitStack
    compute: Compute | None = None

    def prepare(self) -> None:
        """Do what needs no engine, whatever comes of it."""
        try:
            with answered(self.attempt):
                self.compute = PREPARE[self.attempt.jobs[0].params.kind](self.attempt)
        except BaseException:  # nobody will run it, so its leases must run out
            self.held.close()
            raise

    def give_back(self) -> None:
        """Let another worker have it, unharmed."""
        with self.held, answered(self.attempt):
            self.attempt.stop()

    def finish(self, rest: Rest) -> None:
        """Do what needs no engine any more, and let go of all that is held."""
        try:
            with self.held, answered(self.attempt):
                rest()
        except Exception:  # its jobs come back when their leases run out; the next batch must not pay for it
            log.exception("batch.unfinished", jobs=[job.id for job in self.attempt.jobs])


@contextmanager
def answered(attempt: Attempt, lose_engine: Callable[[], None] = lambda: None) -> Iterator[None]:
    """End what is left of a batch with whatever goes wrong. Only a lost lease leaves without a word.

    ``lose_engine`` is called where the engine may still be busy with what went wrong.
    """
    try:
        with _given_up(attempt, lose_engine):
            yield
    except LeaseLost:
        log.warning("batch.lease_lost", jobs=[job.id for job in attempt.jobs])
        lose_engine()


@contextmanager
def _given_up(attempt: Attempt, lose_engine: Callable[[], None]) -> Iterator[None]:
    try:
        yield
    except EngineStuck:
        lose_engine()
        attempt.stop()
    except ChildLost as error:
        lose_engine()
        attempt.give_up(JobError("engine-lost", str(error), retryable=True))
    except InputMissing as error:
        attempt.give_up(JobError("input-missing", str(error), retryable=False))
    except StorageUnavailable as error:
        attempt.give_up(JobError(error.code, error.detail, retryable=True))
    except LeaseLost:
        raise
    except Exception:  # the edge of the process: one batch must never take the worker down with it
        log.exception("batch.broken", jobs=[job.id for job in attempt.jobs])
        lose_engine()
        attempt.give_up(JobError("internal-error", "The worker met an unexpected error.", retryable=True))


def names(job: ClaimedJob) -> dict[str, str | int | None]:
    """Return what every line about an attempt tells."""
    return {
        "job_id": job.id, "tenant_id": job.tenant_id, "trace_id": trace_id(job.traceparent), "attempt": job.attempt
    }  # fmt: skip
