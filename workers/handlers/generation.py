"""Generation: prompts of many tenants in one batch, each job's pictures out."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

from sqlalchemy.orm import Session

from core.jobs import execution, products
from core.jobs.execution import ClaimedJob, Ending
from core.jobs.params import ConceptUse, GenerationParams, PictureFile
from core.jobs.products import Product
from core.jobs.retry import JobError
from core.jobs.states import JobState
from core.tenants.safety import SafetyPolicy
from workers import outputs, protocol
from workers.attempt import Attempt
from workers.handlers import provenance
from workers.inputs import fetch_for_each, fetch_model, fetch_policies
from workers.protocol import Failed, Generate, Generated, GeneratedImage, GenerateItem, Stopped

_BLOCKED = "safety-blocked"  # why a picture is withheld


def prepare(attempt: Attempt) -> Callable[[], Callable[[], None] | None] | None:
    """Fetch what the batch needs; raises InputMissing, StorageUnavailable, LeaseLost.

    What is returned has the pictures drawn, and returns what stores them and ends the jobs, which needs no engine: the
    next batch can be drawn meanwhile.
    """
    with attempt.timed("fetch"):
        fetched = list(fetch_for_each(attempt, _needed, attempt.scratch.parent / "concepts"))
        if not fetched:
            return None
        policies = fetch_policies(attempt.sessions, {job.tenant_id for job, _ in fetched})
        model_id = _params(attempt.jobs[0]).model_id
        place = fetch_model(attempt.sessions, attempt.store, model_id, attempt.scratch.parent / "students")
    request = Generate(
        attempt.request_id,
        model=place.location,
        items=tuple(item for job, paths in fetched for item in _items(job, policies[job.tenant_id], place.name, paths)),
        scratch_dir=str(attempt.scratch),
        student=None if place.student is None else str(place.student),
    )
    return partial(_draw, attempt, request)


def _draw(attempt: Attempt, request: Generate) -> Callable[[], None] | None:
    """Have every job of the batch drawn; raises ChildLost, EngineStuck, LeaseLost."""
    for message in attempt.converse(request):
        match message:
            case Generated():
                attempt.note_engines(message.seconds, message.parts)
                return partial(_finish, attempt, message)
            case Stopped():
                attempt.stop()
            case Failed():
                attempt.give_up(JobError(message.code, message.message, message.retryable))
    return None


def _params(job: ClaimedJob) -> GenerationParams:
    assert isinstance(job.params, GenerationParams)
    return job.params


def _needed(job: ClaimedJob) -> set[str]:
    return {use.file_id for use in _params(job).concepts}


def _items(job: ClaimedJob, safety: SafetyPolicy, model_name: str, paths: Mapping[str, Path]) -> list[GenerateItem]:
    """One item a picture, named ``job/number``."""
    params = _params(job)
    return [
        GenerateItem(
            item_id=f"{job.id}/{number}",
            prompt=params.prompt,
            negative_prompt=params.negative_prompt,
            seed=params.seed_of(number),
            steps=params.steps,
            guidance=params.guidance,
            width=params.width,
            height=params.height,
            concepts=tuple(_concept(use, paths[use.file_id]) for use in params.concepts_of(number)),
            file=_file(
                params.file, provenance.facts(params, number, job_id=job.id, model_name=model_name, paths=paths)
            ),
            safety=safety.value,  # the engine's process knows no core
        )
        for number in range(params.n)
    ]


def _concept(use: ConceptUse, path: Path) -> protocol.ConceptUse:
    return protocol.ConceptUse(
        name=use.name,
        path=str(path),
        gate_bias=use.gate_bias,
        gate_temperature=use.gate_temperature,
        key_lock=use.key_lock,
    )


def _file(wanted: PictureFile, facts: Mapping[str, object]) -> protocol.PictureFile:
    return protocol.PictureFile(wanted.format, wanted.quality, facts if wanted.metadata else None)


def _finish(attempt: Attempt, generated: Generated) -> None:
    """Store and end every job on its own terms: one job's bad concept leaves the others' pictures alone."""
    failures: dict[str, JobError] = {}
    for failure in generated.failures:
        error = JobError(failure.code, failure.message, failure.retryable)
        failures.setdefault(_job_id(failure.item_id), error)
    pictures: defaultdict[str, list[GeneratedImage]] = defaultdict(list)
    for image in generated.outputs:
        pictures[_job_id(image.item_id)].append(image)
    for job in attempt.jobs:
        if len(pictures[job.id]) < _params(job).n:
            failures.setdefault(job.id, JobError("internal-error", "The engine left pictures out.", retryable=True))
    drawn = [job for job in attempt.jobs if job.id not in failures and attempt.keeper.is_held(job.id)]
    with attempt.timed("store"):
        stored = {job.id: _store(attempt, job, pictures[job.id]) for job in drawn}
    attempt.commit(lambda session: _write(session, attempt, drawn, stored, pictures))
    for job in attempt.jobs:
        if job.id in failures and attempt.keeper.is_held(job.id):
            attempt.end(job, failures[job.id])


def _job_id(item_id: str) -> str:
    return item_id.rsplit("/", 1)[0]


def _store(attempt: Attempt, job: ClaimedJob, images: list[GeneratedImage]) -> dict[int, Product]:
    """The files of a job's pictures, by number; those that are withheld have none."""
    params = _params(job)
    file = params.file
    return {
        number: outputs.store(
            attempt,
            job,
            Path(image.path),
            purpose="preview" if params.draft else "output",
            name=f"{number}.{file.format}",
            media_type=file.media_type,
            size=(image.width, image.height),
        )
        for number, image in enumerate(images)
        if image.path is not None
    }


def _write(
    session: Session,
    attempt: Attempt,
    drawn: list[ClaimedJob],
    stored: Mapping[str, Mapping[int, Product]],
    pictures: Mapping[str, list[GeneratedImage]],
) -> set[str]:
    held = execution.hold(session, drawn)
    endings = []
    for job in drawn:
        if job.id not in held:
            continue
        if attempt.keeper.cancel_requested(job.id):
            endings.append(Ending(job.id, job.token, JobState.CANCELED, attempt.gpu_seconds()))
            continue
        products.keep_files(session, job, stored[job.id].values())
        result = _result(_params(job), stored[job.id], pictures[job.id])
        seconds = attempt.gpu_seconds()
        endings.append(Ending(job.id, job.token, JobState.SUCCEEDED, seconds, result=result, timings=attempt.timings))
    return execution.finish(session, endings)


def _result(params: GenerationParams, stored: Mapping[int, Product], drawn: list[GeneratedImage]) -> dict[str, Any]:
    """What the job says of its pictures, in the order in which they were asked for: those to see, those withheld."""
    said = [_said(params, number, image) for number, image in enumerate(drawn)]
    return {
        "images": [{"file_id": stored[number].file_id, **said[number]} for number in sorted(stored)],
        "withheld": [{"code": _BLOCKED, **said[number]} for number in range(len(drawn)) if number not in stored],
    }


def _said(params: GenerationParams, number: int, image: GeneratedImage) -> dict[str, Any]:
    verdict = {} if image.verdict is None else {"safety": asdict(image.verdict)}
    size = {"width": image.width, "height": image.height}
    return {"seed": image.seed, **size, **params.swept(number), **verdict}
