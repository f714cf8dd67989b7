"""Jobs of every kind on the wire."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field

from api.schemas.common import Resource, Time
from api.schemas.generations import GenerationJob
from api.schemas.job import JobError
from api.schemas.trainings import TrainingJob
from api.urls import Urls
from core.jobs import models
from core.jobs.states import AttemptOutcome, JobKind

Job = Annotated[TrainingJob | GenerationJob, Field(discriminator="kind")]


def shown(job: models.Job, model_name: str, urls: Urls) -> TrainingJob | GenerationJob:
    """The job as it is shown."""
    if job.kind == JobKind.TRAINING:
        return TrainingJob.of(job, model_name, urls)
    return GenerationJob.of(job, model_name, urls)


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


class TrainingJobWithAttempts(TrainingJob):
    """A training and the attempts at it."""

    attempts: list[Attempt] = Field(description="First to last.")


class GenerationJobWithAttempts(GenerationJob):
    """A generation and the attempts at it."""

    attempts: list[Attempt] = Field(description="First to last.")


JobWithAttempts = Annotated[TrainingJobWithAttempts | GenerationJobWithAttempts, Field(discriminator="kind")]


def with_attempts(
    job: TrainingJob | GenerationJob, attempts: list[Attempt]
) -> TrainingJobWithAttempts | GenerationJobWithAttempts:
    """The job with the attempts at it."""
    members = dict(job) | {"attempts": attempts}
    if isinstance(job, TrainingJob):
        return TrainingJobWithAttempts.model_construct(**members)
    return GenerationJobWithAttempts.model_construct(**members)
