"""Teacher pairs: one shard of what a distillation waits for, drawn by the teacher."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from sqlalchemy.orm import Session

from core.control import families
from core.jobs import products
from core.jobs.execution import ClaimedJob
from core.jobs.params import PairsWanted, TeacherPairsParams
from core.jobs.retry import JobError
from core.jobs.states import JobStage
from workers import outputs, protocol
from workers.attempt import Attempt
from workers.inputs import InputMissing, fetch_base
from workers.protocol import DrawPairs, Failed, PairsDrawn, Stopped

_MEDIA_TYPE = "application/octet-stream"


def prepare(attempt: Attempt) -> Callable[[], None]:
    """See what the one job of the batch asks for; what is returned draws it. Raises InputMissing."""
    (job,) = attempt.jobs
    assert isinstance(job.params, TeacherPairsParams)
    return partial(_draw, attempt, job, job.params, _request(attempt, job.params))


def _draw(attempt: Attempt, job: ClaimedJob, params: TeacherPairsParams, request: DrawPairs) -> None:
    """Draw the shard; raises StorageUnavailable, ChildLost, EngineStuck, LeaseLost."""
    for message in attempt.converse(request):
        match message:
            case PairsDrawn():
                _succeed(attempt, job, params, message)
            case Stopped():
                attempt.stop()
            case Failed():
                attempt.end(job, JobError(message.code, message.message, message.retryable))


def as_asked(wanted: PairsWanted) -> protocol.PairsWanted:
    """The pairs in the engine's words."""
    return protocol.PairsWanted(count=wanted.count, steps=wanted.steps, shards=wanted.shards, seed=wanted.seed)


def _request(attempt: Attempt, params: TeacherPairsParams) -> DrawPairs:
    with attempt.sessions() as session:
        distillation = families.distillation_params(session, params.distillation_id)
    if distillation is None or distillation.wanted is None:
        raise InputMissing(f"No distillation {params.distillation_id} waits for these pairs.")
    return DrawPairs(
        request_id=attempt.request_id,
        model=fetch_base(attempt.sessions, params.model_id),
        prompts=distillation.prompts,
        settings=distillation.settings,
        wanted=as_asked(distillation.wanted),
        shard=params.shard,
        scratch_dir=str(attempt.scratch),
    )


def _succeed(attempt: Attempt, job: ClaimedJob, params: TeacherPairsParams, drawn: PairsDrawn) -> None:
    attempt.report([job], stage=JobStage.UPLOADING)
    path = Path(drawn.path)
    product = outputs.store(attempt, job, path, purpose="pairs", name=path.name, media_type=_MEDIA_TYPE)

    def keep(session: Session) -> Mapping[str, Any]:
        products.keep_files(session, job, [product])
        return {"file_id": product.file_id, "shard": params.shard, "count": params.count}

    outputs.succeed(attempt, job, keep)
