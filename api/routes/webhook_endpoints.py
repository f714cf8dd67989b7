"""`/v1/webhook_endpoints`: addresses that events are sent to, and what became of the deliveries.

What is done to an endpoint is written into the tenant's audit log: whoever turns one off turns off what others rely on.
"""

from __future__ import annotations

from datetime import timedelta
from functools import partial
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Query, Response

from api.dependencies import Acting, Administrator, AnyCaller, Reader, Server, TenantSession
from api.pagination import WantedPage, list_of
from api.schemas.common import ListOf
from api.schemas.webhook_endpoints import (
    CreateWebhookEndpoint,
    Delivery,
    DeliveryLog,
    NewWebhookEndpoint,
    RecoverDeliveries,
    RecoveredDeliveries,
    RotateSecret,
    UpdateWebhookEndpoint,
    WebhookEndpoint,
)
from core.operations import audit
from core.webhooks import redelivery, subscriptions
from core.webhooks.schedule import DeliveryState

router = APIRouter(prefix="/v1/webhook_endpoints", tags=["Webhooks"])


class _Log:
    """Writes down what the caller does to endpoints."""

    def __init__(self, session: TenantSession, caller: AnyCaller, actor: Acting) -> None:
        self._session = session
        self._caller = caller
        self._actor = actor

    async def note(self, verb: str, endpoint_id: str, after: dict[str, Any] | None = None) -> None:
        """One act, in the request's transaction."""
        noting = partial(audit.note, tenant_id=self._caller.tenant_id, after=after)
        await self._session.run_sync(noting, self._actor, f"webhook_endpoint.{verb}", endpoint_id)


Log = Annotated[_Log, Depends()]


@router.post("", status_code=201)
async def create_webhook_endpoint(
    body: CreateWebhookEndpoint,
    caller: Administrator,
    session: TenantSession,
    *,
    server: Server,
    response: Response,
    log: Log,
) -> NewWebhookEndpoint:
    """Have events sent to an address. Keep the answer's `signing_secret`: it is shown this once."""
    endpoint, secret = await subscriptions.create_endpoint(
        session,
        caller.tenant_id,
        url=body.url,
        name=body.name,
        event_types=body.event_types,
        in_order=body.in_order,
        policy=server.webhook_targets,
    )
    await log.note("created", endpoint.id, body.model_dump(mode="json"))
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
    endpoint_id: str, body: UpdateWebhookEndpoint, _: Administrator, session: TenantSession, *, server: Server, log: Log
) -> WebhookEndpoint:
    """Change an endpoint. What is still owed to it goes to its new address."""
    endpoint = await subscriptions.update_endpoint(
        session,
        endpoint_id,
        policy=server.webhook_targets,
        url=body.url,
        name=body.name,
        event_types=body.event_types,
        in_order=body.in_order,
    )
    await log.note("changed", endpoint_id, body.model_dump(mode="json", exclude_none=True))
    return WebhookEndpoint.of(endpoint)


@router.delete("/{endpoint_id}", status_code=204)
async def delete_webhook_endpoint(endpoint_id: str, _: Administrator, session: TenantSession, log: Log) -> None:
    """Send nothing there any more, not even what is still owed."""
    await subscriptions.delete_endpoint(session, endpoint_id)
    await log.note("deleted", endpoint_id)


@router.post("/{endpoint_id}/rotate_secret")
async def rotate_secret(
    endpoint_id: str, _: Administrator, session: TenantSession, log: Log, body: RotateSecret | None = None
) -> NewWebhookEndpoint:
    """Replace the secret. Keep the answer's `signing_secret`: it is shown this once.

    For a day every webhook has two signatures, one by each secret, so that receivers can be changed one by one.
    """
    keep = (body or RotateSecret()).keep_old_secret_active_for_24_hours
    overlap = subscriptions.OVERLAP if keep else timedelta(0)
    endpoint, secret = await subscriptions.rotate_secret(session, endpoint_id, overlap=overlap)
    await log.note("secret_rotated", endpoint_id, {"keep_old_secret_active_for_24_hours": keep})
    return NewWebhookEndpoint(**WebhookEndpoint.of(endpoint).model_dump(), signing_secret=secret)


@router.post("/{endpoint_id}/disable")
async def disable_webhook_endpoint(
    endpoint_id: str, _: Administrator, session: TenantSession, log: Log
) -> WebhookEndpoint:
    """Send nothing there until it is enabled. What is owed, and what happens meanwhile, is held for it."""
    endpoint = await subscriptions.disable_endpoint(session, endpoint_id)
    await log.note("disabled", endpoint_id)
    return WebhookEndpoint.of(endpoint)


@router.post("/{endpoint_id}/enable")
async def enable_webhook_endpoint(
    endpoint_id: str, _: Administrator, session: TenantSession, log: Log
) -> WebhookEndpoint:
    """Send there again, beginning with what was held."""
    endpoint = await subscriptions.enable_endpoint(session, endpoint_id)
    await log.note("enabled", endpoint_id)
    return WebhookEndpoint.of(endpoint)


@router.post("/{endpoint_id}/test", status_code=202)
async def send_test_event(endpoint_id: str, _: Administrator, session: TenantSession) -> Delivery:
    """Send an event of the type `webhook_endpoint.test` there, whatever types it wants, and to no other endpoint."""
    return Delivery.of(await redelivery.send_test(session, endpoint_id))


@router.post("/{endpoint_id}/recover")
async def recover_deliveries(
    endpoint_id: str, body: RecoverDeliveries, _: Administrator, session: TenantSession
) -> RecoveredDeliveries:
    """Send what happened since a time and failed, or was never sent: before the endpoint existed or wanted its type.

    A request recovers 5,000 of each; while `has_more`, send it again.
    """
    recovered = await redelivery.recover(session, endpoint_id, since=body.since, until=body.until)
    return RecoveredDeliveries.of(recovered)


@router.get("/{endpoint_id}/deliveries")
async def list_deliveries(
    endpoint_id: str,
    _: Reader,
    session: TenantSession,
    page: WantedPage,
    state: Annotated[DeliveryState | None, Query(description="Only those of this state.")] = None,
) -> ListOf[Delivery]:
    """List what was sent to an endpoint or still is to be, newest first."""
    found = await redelivery.list_deliveries(
        session, endpoint_id, state=state, after=page.after, before=page.before, limit=page.limit
    )
    return list_of(found, Delivery.of)


@router.get("/{endpoint_id}/deliveries/{delivery_id}")
async def get_delivery(endpoint_id: str, delivery_id: str, _: Reader, session: TenantSession) -> DeliveryLog:
    """Get a delivery with every request that was made for it."""
    return DeliveryLog.with_attempts(*await redelivery.get_delivery(session, endpoint_id, delivery_id))


@router.post("/{endpoint_id}/deliveries/{delivery_id}/resend", status_code=202)
async def resend_delivery(endpoint_id: str, delivery_id: str, _: Administrator, session: TenantSession) -> Delivery:
    """Send an event once more, whatever became of it, with ten attempts anew."""
    return Delivery.of(await redelivery.resend(session, endpoint_id, delivery_id))
