"""Training: pictures in, a concept version out, checkpoints on the way."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sqlalchemy.orm import Session

from core.concepts.header import MEDIA_TYPE
from core.jobs import products
from core.jobs.execution import ClaimedJob
from core.jobs.params import TrainingParams
from core.jobs.retry import JobError
from core.jobs.states import JobStage
from workers import checkpoints, outputs
from workers.attempt import Attempt
from workers.inputs import fetch_base, fetch_files, require
from workers.protocol import Checkpoint, Failed, Stopped, Train, Trained


def run(attempt: Attempt) -> None:
    """Train the one job of the batch; raises InputMissing, StorageUnavailable, ChildLost, LeaseLost."""
    (job,) = attempt.jobs
    assert isinstance(job.params, TrainingParams)
    for message in attempt.converse(_request(attempt, job, job.params)):
        match message:
            case Checkpoint():
                checkpoints.keep(attempt, job, message)
            case Trained():
                _succeed(attempt, job, job.params, message)
            case Stopped():
                checkpoints.give_back(attempt, job, message)
            case Failed():
                attempt.end(job, JobError(message.code, message.message, message.retryable))


def _request(attempt: Attempt, job: ClaimedJob, params: TrainingParams) -> Train:
    location = fetch_base(attempt.sessions, params.model_id)
    pictures = fetch_files(attempt.sessions, attempt.store, params.file_ids, attempt.scratch / "pictures")
    require(params.file_ids, pictures)
    resume_from = checkpoints.fetch(attempt, job)
    settings: dict[str, object] = {"flip": params.flip}
    if params.steps is not None:
        settings["steps"] = params.steps
    return Train(
        request_id=attempt.request_id,
        model=location,
        pictures=tuple(str(pictures[file_id]) for file_id in params.file_ids),
        superclass=params.superclass,
        concept_name=params.concept_name,
        settings=settings,
        seed=params.seed,
        resume_from=None if resume_from is None else str(resume_from),
        scratch_dir=str(attempt.scratch),
    )


def _succeed(attempt: Attempt, job: ClaimedJob, params: TrainingParams, trained: Trained) -> None:
    attempt.report(stage=JobStage.UPLOADING)
    name = f"{params.concept_name}.safetensors"
    product = outputs.store(attempt, job, Path(trained.path), purpose="concept", name=name, media_type=MEDIA_TYPE)

    def keep(session: Session) -> Mapping[str, Any]:
        products.keep_files(session, job, [product])
        version = products.keep_version(session, job, params, file_id=product.file_id, metrics=trained.metrics)
        return {
            "concept_id": params.concept_id,
            "version": version,
            "file_id": product.file_id,
            "size_bytes": product.stored.size_bytes,
            "metrics": trained.metrics,
        }

    outputs.succeed(attempt, job, keep)
