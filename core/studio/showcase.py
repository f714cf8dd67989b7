"""Concepts as cards: each with a picture that it was learned from, and the training that goes on."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy.ext.asyncio import AsyncSession

from core.catalog.selection import names
from core.concepts import registry
from core.concepts import statements as concepts
from core.concepts.models import Concept, ConceptVersion
from core.db.paging import Page, read_page
from core.files import statements as files
from core.jobs import statements as jobs
from core.jobs.models import Job
from core.jobs.params import TrainingParams

_MOST_TRAININGS = 200


@dataclass(frozen=True)
class Card:
    """A concept at a glance."""

    concept: Concept
    model: str
    version: ConceptVersion | None  # the latest
    picture: str | None  # a file
    training: Job | None  # one that has not ended

    @property
    def id(self) -> str:
        """The concept's."""
        return self.concept.id

    @property
    def created_at(self) -> datetime:
        """The concept's."""
        return self.concept.created_at


async def cards(session: AsyncSession, *, after: str | None, before: str | None, limit: int) -> Page[Card]:
    """A page of the tenant's concepts, newest first."""
    found = await read_page(
        session, concepts.concepts_page, by_id=concepts.concept_by_id, after=after, before=before, limit=limit
    )
    return Page(await cards_of(session, found.rows), found.has_more)


async def offered(session: AsyncSession, *, limit: int) -> list[Card]:
    """What can be drawn with: the tenant's latest concepts, then those that others granted under names of their own."""
    own = await session.scalars(concepts.concepts_page(after=None, before=None, limit=limit))
    granted = await session.scalars(concepts.granted_page(after=None, before=None, limit=limit))
    by_name: dict[str, Concept] = {}
    for concept in (*own, *granted):
        by_name.setdefault(concept.name, concept)
    return [card for card in await cards_of(session, list(by_name.values())) if card.version is not None]


async def cards_of(session: AsyncSession, found: Sequence[Concept]) -> list[Card]:
    """The cards of these concepts."""
    model_names = await names(session, {concept.model_id for concept in found})
    versions = await _latest(session, found)
    live = {
        training.params["concept_id"]: training
        for training in await session.scalars(jobs.live_trainings(limit=_MOST_TRAININGS))
    }
    made_by = [version.job_id for version in versions.values() if version.job_id is not None]
    trainings = {job.params["concept_id"]: job for job in await session.scalars(jobs.jobs_by_ids(made_by))}
    faces = await _faces(session, {**live, **trainings})
    return [
        Card(
            concept,
            model_names[concept.model_id],
            versions.get(concept.id),
            faces.get(concept.id),
            live.get(concept.id),
        )
        for concept in found
    ]


async def _latest(session: AsyncSession, found: Iterable[Concept]) -> dict[str, ConceptVersion]:
    pairs = [(concept.id, concept.latest_version) for concept in found if concept.latest_version is not None]
    return {concept_id: made for (concept_id, _), made in (await registry.versions_among(session, pairs)).items()}


async def _faces(session: AsyncSession, trainings: Mapping[str, Job]) -> dict[str, str]:
    """By concept: the first picture of its training that is still there."""
    learned_from = {
        concept_id: TrainingParams.model_validate(job.params).file_ids for concept_id, job in trainings.items()
    }
    wanted = {file_id for file_ids in learned_from.values() for file_id in file_ids}
    present = {file.id for file in await session.scalars(files.files_by_ids(wanted))}
    first = {
        concept_id: next((file_id for file_id in file_ids if file_id in present), None)
        for concept_id, file_ids in learned_from.items()
    }
    return {concept_id: file_id for concept_id, file_id in first.items() if file_id is not None}
