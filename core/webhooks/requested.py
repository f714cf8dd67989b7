"""Webhooks that a request names for its own job.

Each goes to the URL of its request, signed with the tenant's own secret. What is counted, held and shown goes by host:
an endpoint stands for all such webhooks to it, so that a host that is down holds its own places and nobody else's,
however many jobs name it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

import httpx
from sqlalchemy.ext.asyncio import AsyncSession

from core.errors import Conflict, WebhookTargetRefused
from core.ids import new_id
from core.webhooks import statements
from core.webhooks.signing import new_secret
from core.webhooks.subscriptions import known_types
from core.webhooks.target_policy import TargetPolicy

MOST_HOSTS = 100  # of one tenant


@dataclass(frozen=True)
class RequestedWebhook:
    """Where the events of one job are sent; an empty ``event_types`` means every type."""

    url: str
    event_types: Sequence[str] = ()


@dataclass(frozen=True)
class TenantSecret:
    """What signs these webhooks; ``previous_expires_at``: until then the secret before does, too."""

    secret: str
    previous_expires_at: datetime | None


async def attach(
    session: AsyncSession, tenant_id: str, wanted: RequestedWebhook, policy: TargetPolicy
) -> dict[str, Any]:
    """What a job keeps of it. Raises WebhookTargetRefused, Invalid, and Conflict for one host too many."""
    try:
        policy.check_url(wanted.url)
    except WebhookTargetRefused as error:
        raise WebhookTargetRefused(error.detail, param="webhook.url") from error
    event_types = known_types(wanted.event_types, param="webhook.event_types")
    await _ensure_secret(session, tenant_id)
    endpoint_id = await _endpoint_of(session, tenant_id, wanted.url)
    return {"endpoint_id": endpoint_id, "url": wanted.url, "event_types": event_types}


async def secret_of(session: AsyncSession, tenant_id: str) -> TenantSecret:
    """The tenant's secret, made at the first look."""
    await _ensure_secret(session, tenant_id)
    secret, previous_expires_at = (await session.execute(statements.tenant_secret(tenant_id))).one()
    assert secret is not None
    return TenantSecret(secret, previous_expires_at)


async def rotate_secret(session: AsyncSession, tenant_id: str, *, overlap: timedelta) -> TenantSecret:
    """A new secret; the one before signs beside it for ``overlap``."""
    await _ensure_secret(session, tenant_id)
    values = {"tenant_id": tenant_id, "secret": new_secret(), "overlap": overlap}
    await session.execute(statements.ROTATE_TENANT_SECRET, values)
    return await secret_of(session, tenant_id)


async def _ensure_secret(session: AsyncSession, tenant_id: str) -> None:
    await session.execute(statements.KEEP_TENANT_SECRET, {"tenant_id": tenant_id, "secret": new_secret()})


async def _endpoint_of(session: AsyncSession, tenant_id: str, url: str) -> str:
    """The endpoint that stands for the URL's host, made at its first webhook."""
    where = {"tenant_id": tenant_id, "url": str(httpx.URL(url).copy_with(raw_path=b"/", fragment=None))}
    found = await session.scalar(statements.FIND_HOST, where)
    if found is None:
        added = {**where, "id": new_id("we"), "most": MOST_HOSTS}
        await session.execute(statements.ADD_HOST, added)
        found = await session.scalar(statements.FIND_HOST, where)
    if found is None:
        detail = f"Webhooks of requests go to {MOST_HOSTS} hosts already: delete an endpoint of one of them."
        raise Conflict(detail, param="webhook.url")
    return str(found)
