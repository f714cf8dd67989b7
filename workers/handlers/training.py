"""Training: pictures in, a concept version out, checkpoints on the way."""

from __future__ import annotations

from pathlib import Path

import structlog
from sqlalchemy.orm import Session

from core.errors import StorageUnavailable
from core.ids import new_id
from core.jobs import execution, products
from core.jobs.execution import ClaimedJob, Ending
from core.jobs.params import TrainingParams
from core.jobs.products import Product
from core.jobs.retry import JobError
from core.jobs.states import JobStage, JobState
from core.storage import keys
from core.storage.s3 import ObjectMissing
from workers.attempt import Attempt
from workers.inputs import fetch_files, fetch_model, require
from workers.protocol import Checkpoint, Failed, Stopped, Train, Trained

log = structlog.get_logger()

_MEDIA_TYPE = "application/vnd.lockstep.concept+safetensors"


def run(attempt: Attempt) -> None:
    """Train the one job of the batch; raises InputMissing, StorageUnavailable, ChildLost, LeaseLost."""
    (job,) = attempt.jobs
    assert isinstance(job.params, TrainingParams)
    for message in attempt.converse(_request(attempt, job, job.params)):
        match message:
            case Checkpoint():
                _keep_checkpoint(attempt, job, message)
            case Trained():
                _succeed(attempt, job, job.params, message)
            case Stopped(checkpoint_path=path) as stopped:
                if path is not None:
                    _keep_checkpoint(attempt, job, Checkpoint(stopped.request_id, stopped.step, path))
                attempt.stop()
            case Failed():
                attempt.end(job, JobError(message.code, message.message, message.retryable))


def _request(attempt: Attempt, job: ClaimedJob, params: TrainingParams) -> Train:
    location = fetch_model(attempt.sessions, params.model_id)
    pictures = fetch_files(attempt.sessions, attempt.store, params.file_ids, attempt.scratch / "pictures")
    require(params.file_ids, pictures)
    resume_from: Path | None = None
    if job.checkpoint is not None:
        resume_from = attempt.scratch / "resume.safetensors"
        try:
            attempt.store.get_file(job.checkpoint["key"], resume_from)
        except ObjectMissing:  # then it starts over
            resume_from = None
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


def _keep_checkpoint(attempt: Attempt, job: ClaimedJob, message: Checkpoint) -> None:
    """Store a checkpoint; one that cannot be stored costs steps, should this attempt end, and is no reason to wait."""
    key = keys.checkpoint(job.id, job.token, message.step)
    try:
        attempt.store.put_file(key, Path(message.path), media_type="application/octet-stream")
    except StorageUnavailable as error:
        log.warning("checkpoint.not_stored", job=job.id, error=str(error))
    else:
        attempt.report(checkpoint={"key": key, "step": message.step})


def _succeed(attempt: Attempt, job: ClaimedJob, params: TrainingParams, trained: Trained) -> None:
    attempt.report(stage=JobStage.UPLOADING)
    name = f"{params.concept_name}.safetensors"
    stored = attempt.persist(
        lambda: attempt.store.put_file(keys.output(job.id, job.token, name), Path(trained.path), media_type=_MEDIA_TYPE)
    )
    product = Product(new_id("file"), "concept", name, _MEDIA_TYPE, stored)

    def write(session: Session) -> set[str]:
        if not execution.hold(session, [job]):
            return set()
        if attempt.keeper.cancel_requested(job.id):
            return execution.finish(session, [Ending(job.id, job.token, JobState.CANCELED, attempt.gpu_seconds())])
        products.keep_files(session, job, [product])
        version = products.keep_version(session, job, params, file_id=product.file_id, metrics=trained.metrics)
        result = {
            "concept_id": params.concept_id,
            "version": version,
            "file_id": product.file_id,
            "size_bytes": stored.size_bytes,
            "metrics": trained.metrics,
        }
        ending = Ending(job.id, job.token, JobState.SUCCEEDED, attempt.gpu_seconds(), result=result)
        return execution.finish(session, [ending])

    attempt.commit(write)
