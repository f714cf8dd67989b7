"""`/v1/concepts`: what was learned of things. A concept is addressed by its id or its name."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query, Request, Response
from sqlalchemy.ext.asyncio import AsyncSession

from api import content
from api.dependencies import Reader, Resources, Server, TenantSession, TenantTransactions, Trainer
from api.idempotency import New
from api.pagination import WantedPage, list_of
from api.schemas.common import ListOf
from api.schemas.concepts import Concept, ConceptWithVersions, CreateConcept, ImportConcept, Version
from core.catalog.selection import names, select_base
from core.concepts import importing, models, registry, statements
from core.concepts.header import MEDIA_TYPE
from core.db.paging import read_page
from core.idempotency.replies import Reply

router = APIRouter(prefix="/v1/concepts", tags=["Concepts"])


@router.post("", status_code=201)
async def create_concept(
    body: CreateConcept, caller: Trainer, session: TenantSession, server: Server, response: Response
) -> Concept:
    """Create a concept that nothing was learned of yet. A training creates the concept it names by itself."""
    model = await select_base(session, body.base_model, param="base_model")
    concept = await registry.create(
        session, tenant_id=caller.tenant_id, name=body.name, superclass=body.superclass, model=model
    )
    response.headers["Location"] = server.urls.concept(concept.id)
    return Concept.of(concept, model.name)


@router.post("/import", status_code=201, response_model=ConceptWithVersions)
async def import_concept(body: ImportConcept, caller: Trainer, server: Server, new: New) -> Response:
    """Make a concept, or the next version of one, from an uploaded concept file.

    The file must have been learned on one of this server's base models, here or on another server.
    """

    async def make(session: AsyncSession) -> Reply:
        concept = await importing.import_version(session, caller.tenant_id, body.as_request())
        wire = await _shown(session, concept, server)
        return Reply(201, wire.model_dump(mode="json"), location=server.urls.concept(concept.id))

    return await new.answer(body, make)


@router.get("")
async def list_concepts(_: Reader, session: TenantSession, page: WantedPage) -> ListOf[Concept]:
    """List concepts, newest first."""
    found = await read_page(
        session,
        statements.concepts_page,
        by_id=statements.concept_by_id,
        after=page.after,
        before=page.before,
        limit=page.limit,
    )
    model_names = await names(session, {concept.model_id for concept in found.rows})
    return list_of(found, lambda concept: Concept.of(concept, model_names[concept.model_id]))


@router.get("/{name_or_id}")
async def get_concept(name_or_id: str, _: Reader, session: TenantSession, server: Server) -> ConceptWithVersions:
    """Get a concept and the versions that were made of it."""
    return await _shown(session, await registry.get(session, name_or_id), server)


async def _shown(session: AsyncSession, concept: models.Concept, server: Resources) -> ConceptWithVersions:
    model_names = await names(session, [concept.model_id])
    versions = await registry.versions(session, concept.id)
    return ConceptWithVersions.with_versions(concept, model_names[concept.model_id], versions, server.urls)


@router.delete("/{name_or_id}", status_code=204)
async def delete_concept(name_or_id: str, _: Trainer, session: TenantSession) -> None:
    """Delete a concept and free its name. Jobs that were accepted with it still run."""
    await registry.delete(session, name_or_id)


@router.get("/{name_or_id}/versions")
async def list_versions(name_or_id: str, _: Reader, session: TenantSession, server: Server) -> ListOf[Version]:
    """List what was made of the concept, newest first."""
    concept = await registry.get(session, name_or_id)
    made = await registry.versions(session, concept.id)
    return ListOf(
        data=[Version.of(version, file, server.urls) for version, file in made],
        has_more=False,
        first_id=str(made[0][0].version) if made else None,
        last_id=str(made[-1][0].version) if made else None,
    )


@router.get(
    "/{name_or_id}/content",
    response_class=Response,
    responses={
        200: {"description": "The concept file (safetensors).", "content": {MEDIA_TYPE: {}}},
        409: {"description": "It has not been learned yet."},
        **content.RESPONSES,
    },
)
async def get_concept_content(
    name_or_id: str,
    request: Request,
    _: Reader,
    transactions: TenantTransactions,
    server: Server,
    version: Annotated[int | None, Query(ge=1, description="By default the latest.")] = None,
) -> Response:
    """Download a version's concept file, whole or one `Range`."""
    async with transactions() as session:
        concept = await registry.get(session, name_or_id)
        made, file = await registry.get_version(session, concept, version)
    return await content.serve(request, file, server.store, name=f"{concept.name}-v{made.version}.safetensors")
