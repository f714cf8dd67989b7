"""Webhook endpoints as their tenant manages them: the API's use cases, in the request's transaction.

The session carries the tenant (``core.db.engine.bind_tenant``); another tenant's endpoint is not found.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import partial

from sqlalchemy.ext.asyncio import AsyncSession

from core.db.paging import Page, read_page
from core.errors import Invalid, NotFound
from core.ids import new_id
from core.jobs.events import EVENT_TYPES
from core.webhooks import statements
from core.webhooks.models import WebhookDelivery, WebhookEndpoint
from core.webhooks.signing import new_secret
from core.webhooks.target_policy import TargetPolicy


async def create_endpoint(
    session: AsyncSession, tenant_id: str, *, url: str, name: str, event_types: Iterable[str], policy: TargetPolicy
) -> tuple[WebhookEndpoint, str]:
    """A new endpoint and its secret, which is shown this once; no ``event_types`` means all of them.

    Raises WebhookTargetRefused, or Invalid for an unknown event type.
    """
    policy.check_url(url)
    secret = new_secret()
    endpoint = WebhookEndpoint(
        id=new_id("we"),
        tenant_id=tenant_id,
        name=name,
        url=url,
        event_types=_known(event_types),
        secret=secret,
    )
    session.add(endpoint)
    await session.flush()
    await session.refresh(endpoint)
    return endpoint, secret


async def get_endpoint(session: AsyncSession, endpoint_id: str) -> WebhookEndpoint:
    """The endpoint; raises NotFound."""
    endpoint = await session.scalar(statements.endpoint_by_id(endpoint_id))
    if endpoint is None:
        raise _missing(endpoint_id)
    return endpoint


async def list_endpoints(
    session: AsyncSession, *, after: str | None, before: str | None, limit: int
) -> Page[WebhookEndpoint]:
    """A page of the endpoints, newest first; raises NotFound when the one of ``after`` or ``before`` is gone."""
    return await read_page(
        session,
        statements.endpoints_page,
        by_id=statements.endpoint_by_id,
        after=after,
        before=before,
        limit=limit,
    )


async def update_endpoint(
    session: AsyncSession,
    endpoint_id: str,
    *,
    policy: TargetPolicy,
    url: str | None = None,
    name: str | None = None,
    event_types: Iterable[str] | None = None,
) -> WebhookEndpoint:
    """Change what is given. Deliveries already owed go to the new URL. Raises as ``create_endpoint``, or NotFound."""
    endpoint = await get_endpoint(session, endpoint_id)
    if url is not None:
        policy.check_url(url)
        endpoint.url = url
    if name is not None:
        endpoint.name = name
    if event_types is not None:
        endpoint.event_types = _known(event_types)
    await session.flush()
    return endpoint


async def delete_endpoint(session: AsyncSession, endpoint_id: str) -> None:
    """Stop sending to it; what is still owed fails at its next attempt. Raises NotFound."""
    deleted = await session.execute(statements.DELETE_ENDPOINT, {"endpoint_id": endpoint_id})
    if deleted.one_or_none() is None:
        raise _missing(endpoint_id)


async def list_deliveries(
    session: AsyncSession, endpoint_id: str, *, after: str | None, before: str | None, limit: int
) -> Page[WebhookDelivery]:
    """A page of what was or is to be sent to an endpoint, newest first; raises NotFound."""
    await get_endpoint(session, endpoint_id)
    return await read_page(
        session,
        partial(statements.deliveries_page, endpoint_id=endpoint_id),
        by_id=statements.delivery_by_id,
        after=after,
        before=before,
        limit=limit,
    )


def _known(event_types: Iterable[str]) -> list[str]:
    wanted = set(event_types)
    if unknown := wanted - set(EVENT_TYPES):
        raise Invalid(f"Unknown event types: {', '.join(sorted(unknown))}.", param="event_types")
    return sorted(wanted)


def _missing(endpoint_id: str) -> NotFound:
    return NotFound(f"No webhook endpoint {endpoint_id}.", param="id")
