"""`/v1/concepts`: what was learned of things. A concept is addressed by its id or its name."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query, Request, Response

from api import content
from api.dependencies import Reader, Server, TenantSession, TenantTransactions, Trainer
from api.pagination import WantedPage, list_of
from api.schemas.common import ListOf
from api.schemas.concepts import Concept, ConceptWithVersions, CreateConcept, Version
from core.catalog.selection import names, select_base
from core.concepts import registry, statements
from core.db.paging import read_page

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
    models = await names(session, {concept.model_id for concept in found.rows})
    return list_of(found, lambda concept: Concept.of(concept, models[concept.model_id]))


@router.get("/{name_or_id}")
async def get_concept(name_or_id: str, _: Reader, session: TenantSession, server: Server) -> ConceptWithVersions:
    """Get a concept and the versions that trainings made of it."""
    concept = await registry.get(session, name_or_id)
    models = await names(session, [concept.model_id])
    versions = await registry.versions(session, concept.id)
    return ConceptWithVersions.with_versions(concept, models[concept.model_id], versions, server.urls)


@router.delete("/{name_or_id}", status_code=204)
async def delete_concept(name_or_id: str, _: Trainer, session: TenantSession) -> None:
    """Delete a concept and free its name. Jobs that were accepted with it still run."""
    await registry.delete(session, name_or_id)


@router.get("/{name_or_id}/versions")
async def list_versions(name_or_id: str, _: Reader, session: TenantSession, server: Server) -> ListOf[Version]:
    """List what trainings made of the concept, newest first."""
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
    responses={200: {"description": "The concept file (safetensors).", "content": {"application/octet-stream": {}}}},
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
        _made, file = await registry.get_version(session, concept, version)
    return await content.serve(request, file, server.store)
