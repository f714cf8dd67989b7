"""Drawing again what was drawn: from what a job fixed when it was accepted, not from what its request would mean today.

A newer version of a concept, a model's new defaults or a renamed placeholder change nothing. Models cannot be removed
while a job names them, and a concept's file stays with it; only a concept that was deleted, or is granted no more,
stands in the way. Its file may still lie there, but its owner does not want it drawn any more.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sqlalchemy.ext.asyncio import AsyncSession

from core.concepts import registry
from core.errors import NotReproducible
from core.files import library
from core.jobs.models import Job
from core.jobs.params import GenerationParams
from core.jobs.reading import get_job
from core.jobs.states import JobKind
from core.jobs.submission import QueueLimits, submit


async def reproduce_job(session: AsyncSession, tenant_id: str, job_id: str, *, limits: QueueLimits) -> Job:
    """A job that draws all pictures of that generation again, whatever became of it.

    Raises NotFound and NotReproducible.
    """
    job = await get_job(session, job_id, kind=JobKind.GENERATION)
    return await _again(session, tenant_id, job, _params(job), limits=limits)


async def reproduce_file(session: AsyncSession, tenant_id: str, file_id: str, *, limits: QueueLimits) -> Job:
    """A job that draws this one picture again.

    Raises NotFound, and NotReproducible, also for a file that no generation made.
    """
    file = await library.get(session, file_id, param="file")
    if file.purpose != "output" or file.job_id is None:
        raise NotReproducible(f"{file_id} is not a picture that a generation drew.", param="file")
    job = await get_job(session, file.job_id, kind=JobKind.GENERATION)
    return await _again(session, tenant_id, job, picture_params(job, file_id), limits=limits)


def picture_params(job: Job, file_id: str) -> GenerationParams:
    """What draws this one picture of a generation that has succeeded, and no other."""
    assert job.result is not None  # written in the transaction that made the file's row
    (image,) = [image for image in job.result["images"] if image["file_id"] == file_id]
    params = _params(job)
    return params.alone(_number(params, image))


async def _again(
    session: AsyncSession, tenant_id: str, job: Job, params: GenerationParams, *, limits: QueueLimits
) -> Job:
    concepts = await registry.by_name_and_id(session, {use.concept_id for use in params.concepts})
    for use in params.concepts:
        if use.concept_id not in concepts:
            raise NotReproducible(f"The concept <{use.name}> ({use.concept_id}) that it was drawn with is gone.")
    return await submit(
        session, tenant_id, params.model_copy(update={"reproduces": job.id, "draft": False}), limits=limits
    )


def _params(job: Job) -> GenerationParams:
    return GenerationParams.model_validate(job.params)


def _number(params: GenerationParams, image: Mapping[str, Any]) -> int:
    """Which picture of its job it is; no two have the same seed and the same value of a swept dial."""
    return next(
        number
        for number in range(params.n)
        if image["seed"] == params.seed_of(number) and params.swept(number).items() <= image.items()
    )
