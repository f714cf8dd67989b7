"""`/v1/concepts/{}/grants`: who else may draw with a concept; `/v1/granted_concepts`: what others let one draw with."""

from __future__ import annotations

from fastapi import APIRouter

from api.dependencies import Acting, Administrator, Reader, TenantSession
from api.pagination import WantedPage, list_of
from api.schemas.common import ListOf
from api.schemas.concepts import Grant, GrantConcept, GrantedConcept
from core.catalog.selection import names
from core.concepts import grants, statements
from core.db.paging import read_page

router = APIRouter(prefix="/v1", tags=["Concepts"])


@router.post("/concepts/{name_or_id}/grants", status_code=201)
async def grant_concept(
    name_or_id: str, body: GrantConcept, caller: Administrator, actor: Acting, session: TenantSession
) -> Grant:
    """Let another tenant draw with a concept, in all its versions. It sees none of its files."""
    return Grant.of(await grants.grant(session, actor, caller.tenant_id, name_or_id, body.tenant))


@router.get("/concepts/{name_or_id}/grants")
async def list_grants(name_or_id: str, _: Reader, session: TenantSession, page: WantedPage) -> ListOf[Grant]:
    """List the tenants that may draw with a concept, the latest first."""
    found = await grants.list_grants(session, name_or_id, after=page.after, before=page.before, limit=page.limit)
    return list_of(found, Grant.of)


@router.delete("/concepts/{name_or_id}/grants/{tenant_id}", status_code=204)
async def revoke_grant(
    name_or_id: str, tenant_id: str, caller: Administrator, actor: Acting, session: TenantSession
) -> None:
    """Revoke a grant. What the other tenant has queued with the concept is canceled, what runs is asked to stop."""
    await grants.revoke(session, actor, caller.tenant_id, name_or_id, tenant_id)


@router.get("/granted_concepts")
async def list_granted_concepts(_: Reader, session: TenantSession, page: WantedPage) -> ListOf[GrantedConcept]:
    """List concepts of other tenants that you may draw with, the newest first."""
    found = await read_page(
        session,
        statements.granted_page,
        by_id=statements.granted_by_id,
        after=page.after,
        before=page.before,
        limit=page.limit,
    )
    model_names = await names(session, {concept.model_id for concept in found.rows})
    return list_of(
        found, lambda concept: GrantedConcept.granted(concept, model_names.get(concept.model_id, concept.model_id))
    )
