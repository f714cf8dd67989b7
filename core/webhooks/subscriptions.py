"""Webhook endpoints as their tenant manages them: the API's use cases, in the request's transaction.

The session carries the tenant (``core.db.engine.bind_tenant``); another tenant's endpoint is not found.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import timedelta

from sqlalchemy.ext.asyncio import AsyncSession

from core.db.paging import Page, read_page
from core.errors import Conflict, Invalid, NotFound
from core.events.types import ALL_TYPES
from core.ids import new_id
from core.webhooks import disabling, statements
from core.webhooks.models import WebhookEndpoint
from core.webhooks.notices import DisabledReason
from core.webhooks.signing import new_secret
from core.webhooks.target_policy import TargetPolicy

MOST_ENDPOINTS = 100  # of one tenant: the end of a batch writes an event's delivery to each of them
OVERLAP = timedelta(hours=24)  # for which a secret that was replaced still signs


async def create_endpoint(
    session: AsyncSession,
    tenant_id: str,
    *,
    url: str,
    name: str,
    event_types: Iterable[str],
    policy: TargetPolicy,
    in_order: bool = False,
) -> tuple[WebhookEndpoint, str]:
    """A new endpoint and its secret, which is shown this once; no ``event_types`` means all of them.

    Raises WebhookTargetRefused, Invalid for an unknown event type, and Conflict for one endpoint too many.
    """
    policy.check_url(url)
    if (await session.execute(statements.COUNT_ENDPOINTS)).scalar_one() >= MOST_ENDPOINTS:
        raise Conflict(f"There are {MOST_ENDPOINTS} webhook endpoints already: delete one that nobody needs.")
    secret = new_secret()
    endpoint = WebhookEndpoint(
        id=new_id("we"),
        tenant_id=tenant_id,
        name=name,
        url=url,
        event_types=known_types(event_types),
        secret=secret,
        in_order=in_order,
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


async def get_own_endpoint(session: AsyncSession, endpoint_id: str) -> WebhookEndpoint:
    """The same, if somebody made it; raises NotFound, and Conflict for one that stands for webhooks of requests."""
    endpoint = await get_endpoint(session, endpoint_id)
    if endpoint.on_request:
        raise Conflict("This endpoint stands for the webhooks of requests to a host; it is as they are.", param="id")
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
    in_order: bool | None = None,
) -> WebhookEndpoint:
    """Change what is given. Deliveries already owed go to the new URL.

    Raises as ``create_endpoint``, NotFound, Conflict.
    """
    endpoint = await get_own_endpoint(session, endpoint_id)
    if url is not None and url != endpoint.url:
        policy.check_url(url)
        endpoint.url = url
        endpoint.quiet_until = None  # the other address asked for that
    if name is not None:
        endpoint.name = name
    if in_order is not None:
        endpoint.in_order = in_order
    if event_types is not None and (wanted := known_types(event_types)) != endpoint.event_types:
        endpoint.event_types = wanted
        await session.execute(statements.LISTEN_ANEW, {"endpoint_id": endpoint_id})
    await session.flush()
    return endpoint


async def rotate_secret(session: AsyncSession, endpoint_id: str, *, overlap: timedelta) -> tuple[WebhookEndpoint, str]:
    """The endpoint with a new secret, shown this once; the old one signs beside it for ``overlap``.

    Raises NotFound, Conflict.
    """
    endpoint = await get_own_endpoint(session, endpoint_id)
    secret = new_secret()
    await session.execute(statements.ROTATE_SECRET, {"endpoint_id": endpoint_id, "secret": secret, "overlap": overlap})
    await session.refresh(endpoint)
    return endpoint, secret


async def disable_endpoint(session: AsyncSession, endpoint_id: str) -> WebhookEndpoint:
    """Send nothing there until it is enabled; what is owed, and what happens meanwhile, is held. Raises NotFound."""
    endpoint = await get_endpoint(session, endpoint_id)
    await disabling.disable(session, endpoint_id, DisabledReason.REQUESTED)
    await session.refresh(endpoint)
    return endpoint


async def enable_endpoint(session: AsyncSession, endpoint_id: str) -> WebhookEndpoint:
    """Send there again, and what was held first of all, as ``releasing`` comes to it. Raises NotFound."""
    endpoint = await get_endpoint(session, endpoint_id)
    await session.execute(statements.ENABLE, {"endpoint_id": endpoint_id})
    await session.refresh(endpoint)
    return endpoint


async def delete_endpoint(session: AsyncSession, endpoint_id: str) -> None:
    """Stop sending to it; what is still owed fails at its next attempt. Raises NotFound."""
    deleted = await session.execute(statements.DELETE_ENDPOINT, {"endpoint_id": endpoint_id})
    if deleted.one_or_none() is None:
        raise _missing(endpoint_id)


def known_types(event_types: Iterable[str], *, param: str = "event_types") -> list[str]:
    """The types in order, each once; raises Invalid for one that there is not."""
    wanted = set(event_types)
    if unknown := wanted - set(ALL_TYPES):
        raise Invalid(f"Unknown event types: {', '.join(sorted(unknown))}.", param=param)
    return sorted(wanted)


def _missing(endpoint_id: str) -> NotFound:
    return NotFound(f"No webhook endpoint {endpoint_id}.", param="id")
