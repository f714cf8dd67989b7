"""Accepting a training or a generation: what the request means among the tenant's things, then the job.

Everything runs in the caller's transaction. Raises the errors of ``requests``, and of what it looks up.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from pydantic import TypeAdapter
from sqlalchemy.ext.asyncio import AsyncSession

from core.catalog.facts import ModelFacts
from core.catalog.models import Model
from core.catalog.selection import facts_of, require_ready, select_model, select_student
from core.concepts import registry
from core.concepts.models import Concept, ConceptVersion
from core.errors import (
    ConceptModelMismatch,
    ConceptNotReady,
    Invalid,
    NoPictures,
    NotFound,
    TooManyPictures,
)
from core.files import statements as file_statements
from core.jobs import requests
from core.jobs import statements as job_statements
from core.jobs.models import Job
from core.jobs.params import ContinuedVersion, GenerationParams, KeyLock, TrainingParams
from core.jobs.requests import BoundConcept, GenerationRequest, TrainingRequest
from core.jobs.submission import QueueLimits, submit

SEEDS = 2**31  # seeds are below this

_PICTURES = frozenset({"picture", "output", "preview"})  # the purposes of files that can be learned from
_KEY_LOCK: TypeAdapter[KeyLock] = TypeAdapter(KeyLock)


async def accept_training(
    session: AsyncSession,
    tenant_id: str,
    request: TrainingRequest,
    *,
    limits: QueueLimits,
    max_pictures: int,
    draw_seed: Callable[[], int],
) -> Job:
    """A job that learns the concept, which is made first where there is none of that name."""
    _check_number(request.file_ids, max_pictures)
    await _check_pictures(session, request.file_ids)
    concept, model = await registry.to_learn(
        session,
        tenant_id=tenant_id,
        reference=request.concept,
        superclass=request.superclass,
        model=request.model,
    )
    facts = facts_of(model)
    earlier = await _continued(session, concept, request.continue_from)
    file_ids = tuple(dict.fromkeys([*earlier.file_ids, *request.file_ids]))
    _check_number(file_ids, max_pictures)
    if not file_ids:
        raise NoPictures("A training needs at least one picture.", param="images")
    params = TrainingParams(
        concept_id=concept.id,
        concept_name=concept.name,
        superclass=concept.superclass,
        model_id=model.id,
        file_ids=file_ids,
        key_lock=request.key_lock or earlier.key_lock or _KEY_LOCK.validate_python(facts.default_key_lock),
        steps=request.steps,
        seed=request.seed if request.seed is not None else draw_seed(),
        flip=request.flip,
        continued=earlier.version,
    )
    warnings = requests.superclass_warnings(facts, concept.superclass)
    return await submit(session, tenant_id, params, limits=limits, warnings=[dict(warning) for warning in warnings])


@dataclass(frozen=True)
class _Earlier:
    """What a training goes on from: nothing, or a version, with those of its pictures that are still there."""

    version: ContinuedVersion | None = None
    file_ids: tuple[str, ...] = ()
    key_lock: KeyLock | None = None


async def _continued(session: AsyncSession, concept: Concept, version: int | None) -> _Earlier:
    if version is None:
        return _Earlier()
    made, file = await registry.get_version(session, concept, version, param="continue_from")
    key_lock = _KEY_LOCK.validate_python(made.key_lock)
    training = None if made.job_id is None else await session.scalar(job_statements.job_by_id(made.job_id))
    if training is None:  # imported: its pictures are elsewhere
        return _Earlier(ContinuedVersion(version=made.version, file_id=file.id), key_lock=key_lock)
    learned_from = TrainingParams.model_validate(training.params).file_ids
    present = {picture.id for picture in await session.scalars(file_statements.files_by_ids(learned_from))}
    pictures = tuple(file_id for file_id in learned_from if file_id in present)
    return _Earlier(ContinuedVersion(version=made.version, file_id=file.id), pictures, key_lock)


def _check_number(file_ids: Sequence[str], most: int) -> None:
    if len(file_ids) > most:
        raise TooManyPictures(f"A training takes at most {most} pictures, not {len(file_ids)}.", param="images")


async def _check_pictures(session: AsyncSession, file_ids: Sequence[str]) -> None:
    requests.check_pictures(file_ids)
    purposes = {file.id: file.purpose for file in await session.scalars(file_statements.files_by_ids(file_ids))}
    for place, file_id in enumerate(file_ids):
        if file_id not in purposes:
            raise NotFound(f"No file {file_id}.", param=f"images.{place}")
        if purposes[file_id] not in _PICTURES:
            raise Invalid(f"{file_id} is no picture; its purpose is {purposes[file_id]!r}.", param=f"images.{place}")


async def accept_generation(
    session: AsyncSession,
    tenant_id: str,
    request: GenerationRequest,
    *,
    limits: QueueLimits,
    draw_seed: Callable[[], int],
) -> Job:
    """A job that draws the prompt; the versions of its concepts are fixed here."""
    bound = requests.bind_concepts(request, await registry.by_name_and_id(session, requests.mentioned(request)))
    if request.sweep is not None:
        requests.check_sweep(request.sweep, bound)
    model = await _model_to_draw_with(session, request.model, bound)
    if request.draft:
        model = await select_student(session, model, param="model")
    facts = facts_of(model)
    versions = await _versions(session, bound)
    uses = tuple(
        requests.concept_use(
            use,
            facts,
            version=version.version,
            file_id=version.file_id,
            trained=_KEY_LOCK.validate_python(version.key_lock),
            recommended_bias=version.gate_bias,
            owner_id=None if version.tenant_id == tenant_id else version.tenant_id,
        )
        for use, version in zip(bound, versions, strict=True)
    )
    width, height = requests.picture_size(facts, request.size)
    requests.check_steps(facts, request.steps)
    requests.check_guidance(facts, request)
    params = GenerationParams(
        prompt=request.prompt,
        negative_prompt=request.negative_prompt,
        concepts=uses,
        model_id=model.id,
        steps=request.steps or facts.default_steps,
        guidance=_guidance(facts, request),
        n=request.n,
        seed=request.seed if request.seed is not None else draw_seed(),
        width=width,
        height=height,
        sweep=request.sweep,
        file=request.file,
        draft=request.draft,
    )
    return await submit(session, tenant_id, params, limits=limits)


def _guidance(facts: ModelFacts, request: GenerationRequest) -> float:
    if not facts.takes_guidance:
        return 1.0
    return facts.default_guidance if request.guidance is None else request.guidance


async def _model_to_draw_with(session: AsyncSession, wanted: str | None, bound: Sequence[BoundConcept]) -> Model:
    """The model the request names, or that of its concepts, or the default one; all must be of it or its teacher."""
    model = await select_model(session, wanted or (bound[0].concept.model_id if bound else None), param="model")
    require_ready(model, param="model")
    for use in bound:
        if use.concept.model_id not in (model.id, model.teacher_id):
            detail = f"The concept {use.concept.name!r} was learned on another base model than {model.name!r}."
            raise ConceptModelMismatch(detail, param=use.param)
    return model


async def _versions(session: AsyncSession, bound: Sequence[BoundConcept]) -> list[ConceptVersion]:
    pairs: list[tuple[str, int]] = []
    for use in bound:
        version = use.choice.version or use.concept.latest_version
        if version is None:
            raise ConceptNotReady(f"The concept {use.concept.name!r} has no trained version yet.", param=use.param)
        pairs.append((use.concept.id, version))
    made = await registry.versions_among(session, pairs)
    for use, pair in zip(bound, pairs, strict=True):
        if pair not in made:
            raise NotFound(f"The concept {use.concept.name!r} has no version {pair[1]}.", param=f"{use.param}.version")
    return [made[pair] for pair in pairs]
