"""Distillation: a teacher and its pairs in, a student out, checkpoints and previews on the way."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import structlog
from sqlalchemy.orm import Session

from core.control import families
from core.errors import ModelNameTaken
from core.jobs import products
from core.jobs.execution import ClaimedJob
from core.jobs.params import DistillationParams
from core.jobs.retry import JobError
from core.jobs.states import JobStage
from workers import checkpoints, outputs
from workers.attempt import Attempt
from workers.handlers.teacher_pairs import as_asked
from workers.inputs import InputMissing, fetch_base, fetch_files, require
from workers.protocol import Checkpoint, Distill, Distilled, Failed, Preview, Stopped

log = structlog.get_logger()

_STUDENT = "application/vnd.lockstep.student+safetensors"


def prepare(attempt: Attempt) -> Callable[[], None]:
    """Fetch what the one job needs; what is returned distils. Raises InputMissing, StorageUnavailable, LeaseLost."""
    (job,) = attempt.jobs
    assert isinstance(job.params, DistillationParams)
    return partial(_distil, attempt, job, job.params, _request(attempt, job, job.params))


def _distil(attempt: Attempt, job: ClaimedJob, params: DistillationParams, request: Distill) -> None:
    """Distil the student; raises StorageUnavailable, ChildLost, EngineStuck, LeaseLost."""
    for message in attempt.converse(request):
        match message:
            case Preview():
                outputs.show(attempt, job, message)
            case Checkpoint():
                checkpoints.keep(attempt, job, message)
            case Distilled():
                _succeed(attempt, job, params, message)
            case Stopped():
                checkpoints.give_back(attempt, job, message)
            case Failed():
                attempt.end(job, JobError(message.code, message.message, message.retryable))


def _request(attempt: Attempt, job: ClaimedJob, params: DistillationParams) -> Distill:
    resume_from = checkpoints.fetch(attempt, job)
    return Distill(
        request_id=attempt.request_id,
        model=fetch_base(attempt.sessions, params.model_id),
        prompts=params.prompts,
        settings=params.settings,
        seed=params.seed,
        wanted=None if params.wanted is None else as_asked(params.wanted),
        pairs=_fetch_pairs(attempt, job, params),
        resume_from=None if resume_from is None else str(resume_from),
        scratch_dir=str(attempt.scratch),
    )


def _fetch_pairs(attempt: Attempt, job: ClaimedJob, params: DistillationParams) -> tuple[str, ...]:
    """Local copies of all shards, in order; raises InputMissing."""
    if params.wanted is None:
        return ()
    with attempt.sessions() as session:
        shards = families.pair_files(session, job.id)
    if len(shards) != params.wanted.shards:
        raise InputMissing(f"{len(shards)} of {params.wanted.shards} shards of the teacher's pairs are there.")
    paths = fetch_files(attempt.sessions, attempt.store, shards, attempt.scratch / "pairs")
    require(shards, paths)
    return tuple(str(paths[file_id]) for file_id in shards)


def _succeed(attempt: Attempt, job: ClaimedJob, params: DistillationParams, distilled: Distilled) -> None:
    """Make the student ready; the job fails for good where another distillation made it meanwhile."""
    attempt.report([job], stage=JobStage.UPLOADING)
    name = f"{params.student_name}.safetensors"
    product = outputs.store(attempt, job, Path(distilled.path), purpose="student", name=name, media_type=_STUDENT)

    def keep(session: Session) -> Mapping[str, Any]:
        products.keep_files(session, job, [product])
        products.keep_student(session, params, file_id=product.file_id, timesteps=distilled.timesteps)
        return {
            "model_id": params.student_id,
            "model": params.student_name,
            "file_id": product.file_id,
            "size_bytes": product.stored.size_bytes,
            "timesteps": distilled.timesteps,
            "metrics": distilled.metrics,
        }

    try:
        outputs.succeed(attempt, job, keep)
    except ModelNameTaken as error:
        attempt.end(job, JobError(error.code, error.detail, error.retryable))
