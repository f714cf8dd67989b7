"""SQL of concepts and their versions."""

from __future__ import annotations

from collections.abc import Collection

from sqlalchemy import Select, Update, func, or_, select, text, tuple_, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.sql.dml import ReturningInsert, ReturningUpdate

from core.concepts.models import Concept, ConceptVersion
from core.db.paging import Place, nearest_first
from core.db.time import lockstep_now
from core.files.models import File


def insert_concept(
    *, concept_id: str, tenant_id: str, name: str, superclass: str, model_id: str
) -> ReturningInsert[Concept]:
    """A new concept; returns nothing where the name is taken, after waiting for whoever is just taking it."""
    return (
        insert(Concept)
        .values(id=concept_id, tenant_id=tenant_id, name=name, superclass=superclass, model_id=model_id)
        .on_conflict_do_nothing(
            index_elements=[Concept.tenant_id, Concept.name], index_where=text("deleted_at IS NULL")
        )
        .returning(Concept)
    )


def concept_by_id(concept_id: str) -> Select[Concept]:
    """One concept that is not deleted, as the session's tenant sees it."""
    return select(Concept).where(Concept.id == concept_id, Concept.deleted_at.is_(None))


def concepts_called(names_or_ids: Collection[str]) -> Select[Concept]:
    """Those of these concepts that the session's tenant has; a name is never an id."""
    wanted = list(names_or_ids)
    return select(Concept).where(or_(Concept.id.in_(wanted), Concept.name.in_(wanted)), Concept.deleted_at.is_(None))


def concepts_page(*, after: Place | None, before: Place | None, limit: int) -> Select[Concept]:
    """Concepts, newest first."""
    query = select(Concept).where(Concept.deleted_at.is_(None))
    return nearest_first(query, Concept.created_at, Concept.id, after=after, before=before, limit=limit)


def delete_concept(concept_id: str) -> Update:
    """Hide a concept and free its name; what is queued with it still runs."""
    return update(Concept).where(Concept.id == concept_id).values(deleted_at=lockstep_now())


def next_version(concept_id: str) -> ReturningUpdate[int | None]:
    """Number a new version of the concept; whoever numbers the next one waits for this transaction."""
    return (
        update(Concept)
        .where(Concept.id == concept_id)
        .values(latest_version=func.coalesce(Concept.latest_version, 0) + 1)
        .returning(Concept.latest_version)
        .execution_options(synchronize_session=False)
    )


def versions_of(concept_id: str) -> Select[ConceptVersion, File]:
    """A concept's versions with their files, newest first."""
    return (
        select(ConceptVersion, File)
        .join(File, File.id == ConceptVersion.file_id)
        .where(ConceptVersion.concept_id == concept_id)
        .order_by(ConceptVersion.version.desc())
    )


def versions_among(pairs: Collection[tuple[str, int]]) -> Select[ConceptVersion]:
    """These versions of these concepts."""
    return select(ConceptVersion).where(tuple_(ConceptVersion.concept_id, ConceptVersion.version).in_(list(pairs)))
