"""Training: pictures in, a concept version out, checkpoints on the way; for several customers side by side."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
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
from workers.inputs import fetch_base, fetch_for_each
from workers.protocol import Checkpoint, Failed, Preview, Stopped, Train, Trained, Training


def prepare(attempt: Attempt) -> Callable[[], None] | None:
    """Fetch what the batch needs; what is returned trains it. Raises InputMissing, StorageUnavailable, LeaseLost."""
    location = fetch_base(attempt.sessions, _params(attempt.jobs[0]).model_id)
    trainings = _gather(attempt)
    if not trainings:
        return None
    return partial(_train, attempt, Train(attempt.request_id, model=location, trainings=tuple(trainings)))


def _train(attempt: Attempt, request: Train) -> None:
    """Train the batch side by side; raises StorageUnavailable, ChildLost, EngineStuck, LeaseLost."""
    jobs = {attempt.name(job): job for job in attempt.jobs}
    for message in attempt.converse(request):
        match message:
            case Preview():
                outputs.show(attempt, jobs[message.request_id], message)
            case Checkpoint():
                checkpoints.keep(attempt, jobs[message.request_id], message)
            case Trained():
                _succeed(attempt, jobs[message.request_id], message)
            case Stopped():
                checkpoints.give_back(attempt, jobs[message.request_id], message)
            case Failed():
                error = JobError(message.code, message.message, message.retryable)
                if message.request_id in jobs:
                    attempt.end(jobs[message.request_id], error)
                else:
                    attempt.give_up(error)


def _params(job: ClaimedJob) -> TrainingParams:
    assert isinstance(job.params, TrainingParams)
    return job.params


def _needed(job: ClaimedJob) -> list[str]:
    params = _params(job)
    return [*params.file_ids, *([] if params.continued is None else [params.continued.file_id])]


def _gather(attempt: Attempt) -> list[Training]:
    with attempt.timed("fetch"):
        fetched = fetch_for_each(attempt, _needed, attempt.scratch / "files")
        return [_training(attempt, job, files) for job, files in fetched]


def _training(attempt: Attempt, job: ClaimedJob, files: Mapping[str, Path]) -> Training:
    params = _params(job)
    resume_from = checkpoints.fetch(attempt, job)
    settings: dict[str, object] = {"flip": params.flip, "key_lock": params.key_lock}
    if params.steps is not None:
        settings["steps"] = params.steps
    return Training(
        request_id=attempt.name(job),
        pictures=tuple(str(files[file_id]) for file_id in params.file_ids),
        superclass=params.superclass,
        settings=settings,
        seed=params.seed,
        resume_from=None if resume_from is None else str(resume_from),
        scratch_dir=str(attempt.folder(job)),
        start=None if params.continued is None else str(files[params.continued.file_id]),
    )


def _succeed(attempt: Attempt, job: ClaimedJob, trained: Trained) -> None:
    params = _params(job)
    attempt.report([job], stage=JobStage.UPLOADING)
    name = f"{params.concept_name}.safetensors"
    product = outputs.store(attempt, job, Path(trained.path), purpose="concept", name=name, media_type=MEDIA_TYPE)

    def keep(session: Session) -> Mapping[str, Any]:
        products.keep_files(session, job, [product])
        version = products.keep_version(
            session, job, params, file_id=product.file_id, gate_bias=trained.gate_bias, metrics=trained.metrics
        )
        return {
            "concept_id": params.concept_id,
            "version": version,
            "file_id": product.file_id,
            "size_bytes": product.stored.size_bytes,
            "metrics": trained.metrics,
        }

    outputs.succeed(attempt, job, keep)
