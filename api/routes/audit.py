"""`/v1/audit`: what was done to the tenant and in its name by whoever may do more than others."""

from __future__ import annotations

from functools import partial

from fastapi import APIRouter

from api.dependencies import Administrator, TenantSession
from api.pagination import WantedPage, list_of
from api.schemas.admin import AuditedAct
from api.schemas.common import ListOf
from core.db.paging import read_page
from core.operations import statements

router = APIRouter(prefix="/v1/audit", tags=["Tenancy"])


@router.get("")
async def list_audit_of_tenant(caller: Administrator, session: TenantSession, page: WantedPage) -> ListOf[AuditedAct]:
    """List acts that concern the tenant, the latest first: who did what to which object, and what was there before."""
    rows = partial(statements.audit_page, tenant_id=caller.tenant_id)
    found = await read_page(
        session, rows, by_id=statements.audit_by_id, after=page.after, before=page.before, limit=page.limit
    )
    return list_of(found, AuditedAct.of)
