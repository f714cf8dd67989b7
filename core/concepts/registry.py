"""A tenant's concepts by name or id."""

from __future__ import annotations

from collections.abc import Collection

from sqlalchemy.ext.asyncio import AsyncSession

from core.catalog.models import Model
from core.concepts import statements
from core.concepts.models import Concept, ConceptVersion
from core.errors import ConceptNameTaken, ConceptNotReady, NotFound
from core.files.models import File
from core.ids import new_id


async def create(session: AsyncSession, *, tenant_id: str, name: str, superclass: str, model: Model) -> Concept:
    """A concept that nothing was learned of yet; raises ConceptNameTaken."""
    concept = await _insert(session, tenant_id=tenant_id, name=name, superclass=superclass, model=model)
    if concept is None:
        raise ConceptNameTaken(f"A concept named {name!r} exists already.", param="name")
    return concept


async def get_or_create(session: AsyncSession, *, tenant_id: str, name: str, superclass: str, model: Model) -> Concept:
    """The concept of that name, made where there is none, also when two requests want it at once."""
    return await _insert(session, tenant_id=tenant_id, name=name, superclass=superclass, model=model) or await get(
        session, name, param="concept"
    )


async def _insert(session: AsyncSession, *, tenant_id: str, name: str, superclass: str, model: Model) -> Concept | None:
    statement = statements.insert_concept(
        concept_id=new_id("cpt"), tenant_id=tenant_id, name=name, superclass=superclass, model_id=model.id
    )
    return (await session.scalars(statement)).one_or_none()


async def find(session: AsyncSession, name_or_id: str) -> Concept | None:
    """The concept of that name or id, if there is one."""
    return (await session.scalars(statements.concepts_called([name_or_id]))).one_or_none()


async def by_name_and_id(session: AsyncSession, names_or_ids: Collection[str]) -> dict[str, Concept]:
    """Those of these concepts that there are, each under its name and under its id."""
    if not names_or_ids:
        return {}
    found = list(await session.scalars(statements.concepts_called(names_or_ids)))
    return {concept.id: concept for concept in found} | {concept.name: concept for concept in found}


async def get(session: AsyncSession, name_or_id: str, *, param: str = "id") -> Concept:
    """The concept of that name or id; raises NotFound."""
    concept = await find(session, name_or_id)
    if concept is None:
        raise NotFound(f"No concept {name_or_id}.", param=param)
    return concept


async def delete(session: AsyncSession, name_or_id: str) -> None:
    """Hide the concept and free its name; jobs that were accepted with it still run. Raises NotFound."""
    concept = await get(session, name_or_id)
    await session.execute(statements.delete_concept(concept.id))


async def versions(session: AsyncSession, concept_id: str) -> list[tuple[ConceptVersion, File]]:
    """What trainings made of the concept, newest first."""
    return [(row[0], row[1]) for row in await session.execute(statements.versions_of(concept_id))]


async def get_version(session: AsyncSession, concept: Concept, version: int | None) -> tuple[ConceptVersion, File]:
    """One version, by default the latest; raises ConceptNotReady where there is none yet, NotFound for another."""
    wanted = version if version is not None else concept.latest_version
    if wanted is None:
        raise ConceptNotReady(f"The concept {concept.name!r} has no trained version yet.", param="id")
    for made, file in await versions(session, concept.id):
        if made.version == wanted:
            return made, file
    raise NotFound(f"The concept {concept.name!r} has no version {wanted}.", param="version")
