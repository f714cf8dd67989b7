"""What placeholders of the studio's prompts stand for: there a granted concept is called by its plain name as well."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace

from sqlalchemy.ext.asyncio import AsyncSession

from core.concepts import registry
from core.concepts.models import Concept
from core.jobs.requests import ConceptChoice, GenerationRequest, placeholders


async def concepts_called(session: AsyncSession, names: Collection[str]) -> dict[str, Concept]:
    """The concepts of these names: the tenant's own, else granted ones."""
    known = await registry.by_name_and_id(session, names)
    own = {name: known[name] for name in names if name in known and known[name].name == name}
    return own | await registry.granted_by_name(session, [name for name in names if name not in own])


async def with_granted(session: AsyncSession, request: GenerationRequest) -> GenerationRequest:
    """The request as the API takes it, which knows concepts of others by their ids."""
    called = await concepts_called(session, placeholders(request.prompt))
    chosen = {choice.concept: choice for choice in request.concepts}
    listed = {
        name: replace(chosen.get(name, ConceptChoice(name)), concept=concept.id, placeholder=name)
        for name, concept in called.items()
    }
    return replace(request, concepts=[*listed.values(), *(chosen[name] for name in chosen if name not in listed)])
