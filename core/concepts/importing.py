"""Making a concept, or a version of one, from an uploaded concept file: what a training would have made of it here.

Everything runs in the caller's transaction.
"""

from __future__ import annotations

from dataclasses import dataclass

from sqlalchemy.ext.asyncio import AsyncSession

from core.catalog.models import Model
from core.catalog.selection import base_models, facts_of, select_base
from core.concepts import registry
from core.concepts.header import ConceptHeader
from core.concepts.models import Concept
from core.errors import ConceptModelMismatch, ConceptModelUnknown, Conflict, Invalid
from core.files import library, statements
from core.files.models import File


@dataclass(frozen=True)
class ImportRequest:
    """Take the uploaded file ``file_id`` as a version of ``concept``; None leaves the model to the file."""

    file_id: str
    concept: str  # name or id
    model: str | None = None


async def import_version(session: AsyncSession, tenant_id: str, request: ImportRequest) -> Concept:
    """Make the file the concept's newest version; a new name makes a new concept.

    Raises NotFound, Invalid and Conflict for a file that cannot be taken, ConceptModelUnknown and ConceptModelMismatch
    for one that fits no model or not the concept's, and what naming a concept and a model raises.
    """
    file = await _take(session, request.file_id)
    header = ConceptHeader.model_validate(file.header)
    known = await registry.find(session, request.concept)
    if known is not None and known.superclass != header.superclass:
        detail = f"The concept {known.name!r} is a {known.superclass!r}; the file's is a {header.superclass!r}."
        raise Conflict(detail, param="file")
    wanted = request.model if known is None else request.model or known.model_id
    model = await _fitting_model(session, header, wanted)
    concept, _ = await registry.to_learn(
        session, tenant_id=tenant_id, reference=request.concept, superclass=header.superclass, model=model.id
    )
    await registry.add_version(
        session,
        concept,
        file_id=file.id,
        key_lock=header.key_lock,
        gate_bias=header.gate_bias,
        metrics=header.scores,
    )
    return concept


async def _take(session: AsyncSession, file_id: str) -> File:
    """Turn the upload into a concept's file, which can no longer be deleted; a second import finds it taken."""
    taken = (await session.scalars(statements.take_concept_upload(file_id))).one_or_none()
    if taken is not None:
        return taken
    file = await library.get(session, file_id, param="file")
    if file.purpose == "concept":
        raise Conflict(f"{file_id} is a version of a concept already.", param="file")
    raise Invalid(f"{file_id} was not uploaded with the purpose 'concept_upload'.", param="file")


async def _fitting_model(session: AsyncSession, header: ConceptHeader, wanted: str | None) -> Model:
    """The base model to use the concept on.

    A model that does not say what concepts fit it is taken at its name; its worker will check the file.
    """
    if wanted is not None:
        model = await select_base(session, wanted, param="base_model")
        space = facts_of(model).concept_space
        if space is not None and (misfit := header.misfit(space)):
            detail = f"The concept was learned on {header.base_model!r} and not on {model.name!r}: {misfit}."
            raise ConceptModelMismatch(detail, param="file")
        return model
    models = await base_models(session)
    spaces = [(model, facts_of(model).concept_space) for model in models]
    fitting = [model for model, space in spaces if space is not None and header.misfit(space) is None]
    namesakes = [model for model, space in spaces if space is None and model.name == header.base_model]
    if not fitting and not namesakes:
        detail = f"The concept was learned on {header.base_model!r}, and no base model here is that one."
        raise ConceptModelUnknown(detail, param="file")
    return [*fitting, *namesakes][0]
