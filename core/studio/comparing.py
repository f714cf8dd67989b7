"""What a request is compared with: itself under each key lock, or drawn by a teacher and each of its students."""

from __future__ import annotations

from dataclasses import replace
from typing import Final, Literal

from sqlalchemy.ext.asyncio import AsyncSession

from core.catalog.models import Model
from core.catalog.selection import all_models, select_model
from core.concepts import registry
from core.errors import Invalid
from core.jobs import requests
from core.jobs.params import KeyLock
from core.jobs.requests import BoundConcept, ConceptChoice, GenerationRequest

By = Literal["model", "lock"]

MOST: Final = 6  # pictures side by side
_LOCKS: Final[tuple[KeyLock, ...]] = ("global", "local", "trained")


async def variants(session: AsyncSession, request: GenerationRequest, by: By) -> list[GenerationRequest]:
    """The requests whose pictures lie side by side.

    Raises what binding concepts raises, and Invalid where there are fewer than two.
    """
    known = await registry.by_name_and_id(session, requests.mentioned(request))
    bound = requests.bind_concepts(request, known)
    found = await (_by_lock if by == "lock" else _by_model)(session, request, bound)
    if len(found) < 2:
        lacking = "concept in the prompt" if by == "lock" else "student of this model"
        raise Invalid(f"There is nothing to compare with: no {lacking}.", param="prompt" if by == "lock" else "by")
    return found[:MOST]


async def _by_model(
    session: AsyncSession, request: GenerationRequest, bound: list[BoundConcept]
) -> list[GenerationRequest]:
    base = await select_model(session, bound[0].concept.model_id if bound else None, param="model")
    family = [base, *(model for model in await all_models(session) if _draws_like(model, base))]
    return [replace(request, model=model.id) for model in family]


def _draws_like(model: Model, base: Model) -> bool:
    return model.teacher_id == base.id and model.is_ready


async def _by_lock(
    session: AsyncSession, request: GenerationRequest, bound: list[BoundConcept]
) -> list[GenerationRequest]:
    """Each lock that every concept of the prompt can be drawn with; its bias is the lock's own."""
    pairs = [(use.concept.id, use.concept.latest_version) for use in bound if use.concept.latest_version is not None]
    trained = {version.key_lock for version in (await registry.versions_among(session, pairs)).values()}
    locks = [lock for lock in _LOCKS if lock != "trained" or trained == {"trained"}] if bound else []
    return [
        replace(
            request,
            concepts=tuple(ConceptChoice(use.concept.id, placeholder=use.placeholder, key_lock=lock) for use in bound),
        )
        for lock in locks
    ]
