"""`/admin/tenants` and `/admin/webhooks`: customers with their money and their webhooks, and what is done for them."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Query, Request, Response
from fastapi.responses import HTMLResponse, RedirectResponse

from api import content
from api.dependencies import Acting, Operator, OperatorSession, Resources, Server
from api.pages.operations import done
from api.pages.rendering import page
from api.pagination import WantedPage
from core.budgets import budgets, usage
from core.db.transactions import Transactions, tenant_transactions
from core.errors import NotFound
from core.files import library
from core.operations import on_behalf, reads
from core.webhooks import redelivery, subscriptions
from core.webhooks.schedule import DeliveryState

router = APIRouter(prefix="/admin", include_in_schema=False)

_ROWS = 100

After = Annotated[str | None, Query(max_length=64)]


def _of(server: Resources, tenant_id: str) -> Transactions:
    return tenant_transactions(server.sessions, tenant_id)


@router.get("/tenants")
async def show_tenants(request: Request, session: OperatorSession, after: After = None, tenant: str = "") -> Response:
    """Show tenants, or go to the one that is named."""
    if tenant:
        found = await reads.tenant(session, tenant.strip())
        return RedirectResponse(f"/admin/tenants/{found.tenant.id}", status_code=303)
    rows, has_more = await reads.every_tenant(session, after=after, limit=_ROWS)
    return page(request, "admin/tenants.html", tenants=rows, has_more=has_more)


@router.get("/tenants/{tenant_id}")
async def show_customer(
    request: Request,
    tenant_id: str,
    session: OperatorSession,
    server: Server,
    after: Annotated[int | None, Query(ge=0, le=2**63 - 1)] = None,
) -> HTMLResponse:
    """Show a tenant's pools, budgets, usage, ledger and webhook endpoints."""
    view = await reads.tenant(session, tenant_id)
    rows, has_more = await reads.ledger(session, tenant_id, after=after, limit=_ROWS)
    endpoints, more_endpoints = await reads.endpoints(session, tenant_id, after=None, limit=_ROWS)
    async with _of(server, tenant_id)() as own:  # as the tenant itself is told
        standings = await budgets.standings(own, tenant_id)
        used = await usage.usage(own, None, None, ["kind"])
    return page(
        request,
        "admin/customer.html",
        view=view,
        standings=standings,
        used=used,
        ledger=rows,
        has_more=has_more,
        endpoints=endpoints,
        more_endpoints=more_endpoints,
    )


@router.get("/webhooks")
async def show_endpoints(request: Request, session: OperatorSession, after: After = None) -> HTMLResponse:
    """Show the webhook endpoints that fail or are disabled, whosever they are."""
    rows, has_more = await reads.endpoints(session, None, after=after, limit=_ROWS)
    return page(request, "admin/webhooks.html", endpoints=rows, has_more=has_more)


@router.get("/webhooks/{endpoint_id}")
async def show_deliveries(
    request: Request,
    endpoint_id: str,
    session: OperatorSession,
    wanted: WantedPage,
    state: Annotated[DeliveryState | None, Query()] = None,
) -> HTMLResponse:
    """Show what was sent to an endpoint, or is to be."""
    endpoint = await subscriptions.get_endpoint(session, endpoint_id)
    found = await redelivery.list_deliveries(
        session, endpoint_id, state=state, after=wanted.after, before=wanted.before, limit=wanted.limit
    )
    values: dict[str, Any] = {"endpoint": endpoint, "found": found, "state": state, "states": list(DeliveryState)}
    return page(request, "admin/deliveries.html", **values)


@router.post("/webhooks/{endpoint_id}/enable")
async def enable_endpoint(
    request: Request, endpoint_id: str, session: OperatorSession, server: Server, actor: Acting
) -> Response:
    """Send to an endpoint again, beginning with what was held."""
    tenant_id = (await subscriptions.get_endpoint(session, endpoint_id)).tenant_id
    async with _of(server, tenant_id)() as own:
        await on_behalf.enable_endpoint(own, actor, tenant_id, endpoint_id)
    return done(request, "What was held is being sent.", f"/admin/webhooks/{endpoint_id}")


@router.post("/webhooks/{endpoint_id}/deliveries/{delivery_id}/resend")
async def resend_delivery(
    request: Request,
    endpoint_id: str,
    delivery_id: str,
    session: OperatorSession,
    *,
    server: Server,
    actor: Acting,
) -> Response:
    """Send an event once more."""
    tenant_id = (await subscriptions.get_endpoint(session, endpoint_id)).tenant_id
    async with _of(server, tenant_id)() as own:
        await on_behalf.resend(own, actor, tenant_id, endpoint_id, delivery_id)
    return done(request, "It is sent once more.", f"/admin/webhooks/{endpoint_id}")


@router.post("/jobs/{job_id}/retry")
async def retry_job(request: Request, job_id: str, session: OperatorSession, server: Server, actor: Acting) -> Response:
    """Try a job again that did not succeed, and go on to the new one."""
    tenant_id = await reads.tenant_of_job(session, job_id)
    async with _of(server, tenant_id)() as own:
        job = await on_behalf.retry_job(own, actor, tenant_id, job_id, limits=server.queue)
    there = f"/admin/jobs/{job.id}"
    if "hx-request" in request.headers:
        return Response(headers={"HX-Redirect": there})
    return done(request, "It is tried again.", there)


@router.get("/jobs/{job_id}/pictures/{file_id}")
async def show_picture(request: Request, job_id: str, file_id: str, _: Operator, server: Server) -> Response:
    """Show a picture that a job made."""
    async with server.operator_sessions() as session, session.begin():  # none is open while the store is read
        tenant_id = await reads.tenant_of_job(session, job_id)
    async with _of(server, tenant_id)() as own:
        file = await library.get(own, file_id)
    if file.purpose != "output":
        raise NotFound(f"{file_id} is no picture that was made.", param="file_id")
    return await content.serve(request, file, server.store)
