"""SQL of concepts and their versions."""

from __future__ import annotations

from collections.abc import Collection

from sqlalchemy import Select, Text, Update, bindparam, column, func, or_, select, text, tuple_, update
from sqlalchemy.dialects.postgresql import ARRAY, insert
from sqlalchemy.orm import aliased
from sqlalchemy.sql.dml import ReturningInsert, ReturningUpdate

from core.concepts.models import Concept, ConceptGrant, ConceptVersion
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


# --- grants -----------------------------------------------------------------------------------------------------

# What others granted to the session's tenant: functions of the owner, for their rows are not the tenant's to see.
_GRANTED_CONCEPT = aliased(
    Concept,
    func.granted_concepts().table_valued(*(column(c.name, c.type) for c in Concept.__table__.c), name="granted"),
    adapt_on_names=True,
)
_GRANTED_VERSION = aliased(
    ConceptVersion,
    func.granted_versions().table_valued(*(column(c.name, c.type) for c in ConceptVersion.__table__.c), name="granted"),
    adapt_on_names=True,
)

USE_GRANTS = text("SELECT use_grants(:job_id, :concept_ids)").bindparams(bindparam("concept_ids", type_=ARRAY(Text())))

GRANT = text("""
    INSERT INTO concept_grants (tenant_id, concept_id, grantee_id) VALUES (:tenant_id, :concept_id, :grantee_id)
    ON CONFLICT DO NOTHING RETURNING grantee_id
""")

REVOKE = text("""
    DELETE FROM concept_grants WHERE concept_id = :concept_id AND grantee_id = :grantee_id RETURNING grantee_id
""")

LIVE_USERS = text("""
    SELECT j.id FROM granted_uses u JOIN jobs j ON j.tenant_id = u.tenant_id AND j.id = u.job_id
    WHERE u.concept_id = :concept_id AND j.state IN ('queued', 'running')
""")


def granted_called(references: Collection[str]) -> Select[Concept]:
    """Those of these concepts that others granted; a reference is an id, or the owner's id, a slash and the name."""
    concept, wanted = _GRANTED_CONCEPT, list(references)
    return select(concept).where(or_(concept.id.in_(wanted), (concept.tenant_id + "/" + concept.name).in_(wanted)))


def granted_named(names: Collection[str]) -> Select[Concept]:
    """Concepts of these names that others granted, the latest last."""
    concept = _GRANTED_CONCEPT
    return select(concept).where(concept.name.in_(list(names))).order_by(concept.created_at, concept.id)


def granted_page(*, after: Place | None, before: Place | None, limit: int) -> Select[Concept]:
    """Concepts that others granted, newest first."""
    concept = _GRANTED_CONCEPT
    return nearest_first(select(concept), concept.created_at, concept.id, after=after, before=before, limit=limit)


def granted_by_id(concept_id: str) -> Select[Concept]:
    """One concept that somebody else granted."""
    return select(_GRANTED_CONCEPT).where(_GRANTED_CONCEPT.id == concept_id)


def granted_versions_among(pairs: Collection[tuple[str, int]]) -> Select[ConceptVersion]:
    """These versions of concepts that others granted."""
    version = _GRANTED_VERSION
    return select(version).where(tuple_(version.concept_id, version.version).in_(list(pairs)))


def grants_page(concept_id: str, *, after: Place | None, before: Place | None, limit: int) -> Select[ConceptGrant]:
    """A concept's grants, the latest first."""
    query = select(ConceptGrant).where(ConceptGrant.concept_id == concept_id)
    return nearest_first(
        query, ConceptGrant.created_at, ConceptGrant.grantee_id, after=after, before=before, limit=limit
    )


def grant_to(concept_id: str, grantee_id: str) -> Select[ConceptGrant]:
    """One grant."""
    return select(ConceptGrant).where(ConceptGrant.concept_id == concept_id, ConceptGrant.grantee_id == grantee_id)
