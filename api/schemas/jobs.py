"""Jobs of every kind on the wire."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import Field

from api.schemas.common import Resource, Time
from api.schemas.distillations import DistillationJob, TeacherPairsJob
from api.schemas.generations import GenerationJob
from api.schemas.job import JobError
from api.schemas.trainings import TrainingJob
from api.urls import Urls
from core.jobs import models
from core.jobs.states import AttemptOutcome, JobKind

AnyJob = TrainingJob | DistillationJob | GenerationJob | TeacherPairsJob
Job = Annotated[AnyJob, Field(discriminator="kind")]

_SHAPES: Mapping[JobKind, type[AnyJob]] = {
    JobKind.TRAINING: TrainingJob,
    JobKind.DISTILLATION: DistillationJob,
    JobKind.GENERATION: GenerationJob,
    JobKind.TEACHER_PAIRS: TeacherPairsJob,
}


def shown(job: models.Job, model_name: str, urls: Urls) -> AnyJob:
    """The job as it is shown."""
    return _SHAPES[JobKind(job.kind)].of(job, model_name, urls)


class Attempt(Resource):
    """One worker's try at a job."""

    object: Literal["job.attempt"] = "job.attempt"
    attempt: int = Field(description="Counts from 1; an attempt given back unharmed does not count.")
    worker_id: str
    started_at: Time
    ended_at: Time | None
    outcome: AttemptOutcome | None = Field(description="`lost`: its worker died; `returned`: it gave the job back.")
    error: JobError | None

    @classmethod
    def of(cls, attempt: models.JobAttempt) -> Attempt:
        """The attempt as it is shown."""
        members: dict[str, Any] = {
            "attempt": attempt.attempt,
            "worker_id": attempt.worker_id,
            "started_at": attempt.started_at,
            "ended_at": attempt.ended_at,
            "outcome": attempt.outcome,
            "error": attempt.error,
        }
        return cls.model_validate(members)


class _WithAttempts(Resource):
    attempts: list[Attempt] = Field(description="First to last.")


class TrainingJobWithAttempts(TrainingJob, _WithAttempts):
    """A training and the attempts at it."""


class DistillationJobWithAttempts(DistillationJob, _WithAttempts):
    """A distillation and the attempts at it."""


class GenerationJobWithAttempts(GenerationJob, _WithAttempts):
    """A generation and the attempts at it."""


class TeacherPairsJobWithAttempts(TeacherPairsJob, _WithAttempts):
    """A shard of pairs and the attempts at it."""


AnyJobWithAttempts = (
    TrainingJobWithAttempts | DistillationJobWithAttempts | GenerationJobWithAttempts | TeacherPairsJobWithAttempts
)
JobWithAttempts = Annotated[AnyJobWithAttempts, Field(discriminator="kind")]

_SHAPES_WITH_ATTEMPTS: Mapping[str, type[AnyJobWithAttempts]] = {
    "training": TrainingJobWithAttempts,
    "distillation": DistillationJobWithAttempts,
    "generation": GenerationJobWithAttempts,
    "teacher_pairs": TeacherPairsJobWithAttempts,
}


def with_attempts(job: AnyJob, attempts: list[Attempt]) -> AnyJobWithAttempts:
    """The job with the attempts at it."""
    return _SHAPES_WITH_ATTEMPTS[job.kind].model_construct(**dict(job), attempts=attempts)
