"""A tenant's concepts by name or id, and the versions that are made of them."""

from __future__ import annotations

from collections.abc import Collection, Mapping

from sqlalchemy.ext.asyncio import AsyncSession

from core.catalog.models import Model
from core.catalog.selection import select_base, select_model
from core.concepts import statements
from core.concepts.models import Concept, ConceptVersion
from core.errors import ConceptModelMismatch, ConceptNameTaken, ConceptNotReady, Conflict, Invalid, NotFound
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
    """Those of these concepts that there are, each under its name and under its id.

    One that another tenant granted is called by its id, or by its owner's, a slash and its name.
    """
    if not names_or_ids:
        return {}
    found = list(await session.scalars(statements.concepts_called(names_or_ids)))
    known = {concept.id: concept for concept in found} | {concept.name: concept for concept in found}
    foreign = [name for name in set(names_or_ids) - known.keys() if "/" in name or name.startswith("cpt_")]
    if not foreign:
        return known
    granted = list(await session.scalars(statements.granted_called(foreign)))
    by_reference = {f"{concept.tenant_id}/{concept.name}": concept for concept in granted}
    return known | by_reference | {concept.id: concept for concept in granted}


async def granted_by_name(session: AsyncSession, names: Collection[str]) -> dict[str, Concept]:
    """The concepts that others granted by their plain names, of which the latest has it where several do."""
    if not names:
        return {}
    return {concept.name: concept for concept in await session.scalars(statements.granted_named(names))}


async def get(session: AsyncSession, name_or_id: str, *, param: str = "id") -> Concept:
    """The concept of that name or id; raises NotFound."""
    concept = await find(session, name_or_id)
    if concept is None:
        raise NotFound(f"No concept {name_or_id}.", param=param)
    return concept


async def to_learn(
    session: AsyncSession, *, tenant_id: str, reference: str, superclass: str | None, model: str | None
) -> tuple[Concept, Model]:
    """The concept that a version is to be made of, or a new one of that name, and its model.

    Raises NotFound for an unknown id, Invalid for a new name without a superclass, ConceptModelMismatch and Conflict
    where model or superclass are not the concept's, and what choosing a model raises.
    """
    concept = await find(session, reference)
    if concept is None and reference.startswith("cpt_"):
        raise NotFound(f"No concept {reference}.", param="concept")
    if concept is None:
        base = await select_base(session, model, param="base_model")
        if superclass is None:
            raise Invalid(f"The concept {reference!r} is new: say what kind of thing it is.", param="superclass")
        concept = await get_or_create(session, tenant_id=tenant_id, name=reference, superclass=superclass, model=base)
    own = await select_model(session, concept.model_id, param="base_model")
    if model is not None and model not in (own.id, own.name):
        await select_model(session, model, param="base_model")  # an unknown model is that, not another one
        raise ConceptModelMismatch(f"The concept {concept.name!r} belongs to {own.name!r}.", param="base_model")
    if superclass not in (None, concept.superclass):
        raise Conflict(f"The concept {concept.name!r} is a {concept.superclass!r}.", param="superclass")
    return concept, own


async def add_version(
    session: AsyncSession,
    concept: Concept,
    *,
    file_id: str,
    key_lock: str,
    gate_bias: float | None,
    metrics: Mapping[str, float],
) -> None:
    """Make an imported file the concept's newest version."""
    version = (await session.execute(statements.next_version(concept.id))).scalar_one()
    session.add(
        ConceptVersion(
            concept_id=concept.id,
            version=version,
            tenant_id=concept.tenant_id,
            file_id=file_id,
            key_lock=key_lock,
            gate_bias=gate_bias,
            metrics=dict(metrics),
        )
    )
    await session.flush()
    await session.refresh(concept)


async def delete(session: AsyncSession, name_or_id: str) -> None:
    """Hide the concept and free its name; jobs that were accepted with it still run. Raises NotFound."""
    concept = await get(session, name_or_id)
    await session.execute(statements.delete_concept(concept.id))


async def versions(session: AsyncSession, concept_id: str) -> list[tuple[ConceptVersion, File]]:
    """What was made of the concept, newest first."""
    return [(row[0], row[1]) for row in await session.execute(statements.versions_of(concept_id))]


async def versions_among(
    session: AsyncSession, pairs: Collection[tuple[str, int]]
) -> dict[tuple[str, int], ConceptVersion]:
    """Those of these versions, by concept and number, that there are: the tenant's own and granted ones."""
    if not pairs:
        return {}
    own = await session.scalars(statements.versions_among(pairs))
    made = {(row.concept_id, row.version): row for row in own}
    if elsewhere := set(pairs) - made.keys():
        granted = await session.scalars(statements.granted_versions_among(elsewhere))
        made |= {(row.concept_id, row.version): row for row in granted}
    return made


async def get_version(
    session: AsyncSession, concept: Concept, version: int | None, *, param: str = "version"
) -> tuple[ConceptVersion, File]:
    """One version, by default the latest; raises ConceptNotReady where there is none yet, NotFound for another."""
    wanted = version if version is not None else concept.latest_version
    if wanted is None:
        raise ConceptNotReady(f"The concept {concept.name!r} has no trained version yet.", param="id")
    for made, file in await versions(session, concept.id):
        if made.version == wanted:
            return made, file
    raise NotFound(f"The concept {concept.name!r} has no version {wanted}.", param=param)
