"""`/v1/webhook_endpoints`: addresses that events are sent to, and what became of the deliveries."""

from __future__ import annotations

from fastapi import APIRouter, Response

from api.dependencies import Administrator, Reader, Server, TenantSession
from api.pagination import WantedPage, list_of
from api.schemas.common import ListOf
from api.schemas.webhook_endpoints import (
    CreateWebhookEndpoint,
    Delivery,
    NewWebhookEndpoint,
    UpdateWebhookEndpoint,
    WebhookEndpoint,
)
from core.webhooks import subscriptions

router = APIRouter(prefix="/v1/webhook_endpoints", tags=["Webhooks"])


@router.post("", status_code=201)
async def create_webhook_endpoint(
    body: CreateWebhookEndpoint, caller: Administrator, session: TenantSession, server: Server, response: Response
) -> NewWebhookEndpoint:
    """Have events sent to an address. Keep the answer's `signing_secret`: it is shown this once."""
    endpoint, secret = await subscriptions.create_endpoint(
        session,
        caller.tenant_id,
        url=body.url,
        name=body.name,
        event_types=body.event_types,
        policy=server.webhook_targets,
    )
    response.headers["Location"] = server.urls.webhook_endpoint(endpoint.id)
    return NewWebhookEndpoint(**WebhookEndpoint.of(endpoint).model_dump(), signing_secret=secret)


@router.get("")
async def list_webhook_endpoints(_: Reader, session: TenantSession, page: WantedPage) -> ListOf[WebhookEndpoint]:
    """List the endpoints, newest first."""
    found = await subscriptions.list_endpoints(session, after=page.after, before=page.before, limit=page.limit)
    return list_of(found, WebhookEndpoint.of)


@router.get("/{endpoint_id}")
async def get_webhook_endpoint(endpoint_id: str, _: Reader, session: TenantSession) -> WebhookEndpoint:
    """Get an endpoint."""
    return WebhookEndpoint.of(await subscriptions.get_endpoint(session, endpoint_id))


@router.post("/{endpoint_id}")
async def update_webhook_endpoint(
    endpoint_id: str, body: UpdateWebhookEndpoint, _: Administrator, session: TenantSession, server: Server
) -> WebhookEndpoint:
    """Change an endpoint. What is still owed to it goes to its new address."""
    endpoint = await subscriptions.update_endpoint(
        session,
        endpoint_id,
        policy=server.webhook_targets,
        url=body.url,
        name=body.name,
        event_types=body.event_types,
    )
    return WebhookEndpoint.of(endpoint)


@router.delete("/{endpoint_id}", status_code=204)
async def delete_webhook_endpoint(endpoint_id: str, _: Administrator, session: TenantSession) -> None:
    """Send nothing there any more, not even what is still owed."""
    await subscriptions.delete_endpoint(session, endpoint_id)


@router.get("/{endpoint_id}/deliveries")
async def list_deliveries(endpoint_id: str, _: Reader, session: TenantSession, page: WantedPage) -> ListOf[Delivery]:
    """List what was sent to an endpoint or still is to be, newest first."""
    found = await subscriptions.list_deliveries(
        session, endpoint_id, after=page.after, before=page.before, limit=page.limit
    )
    return list_of(found, Delivery.of)
