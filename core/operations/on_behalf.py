"""What operators do in a tenant's place: as it could do itself, under its limits, and written down as theirs.

Each act is one transaction that sees this tenant's rows and no others, so it can reach nobody else's by mistake.
"""

from __future__ import annotations

from functools import partial

from sqlalchemy.ext.asyncio import AsyncSession

from core.jobs import retrying
from core.jobs.models import Job
from core.jobs.submission import QueueLimits
from core.operations import audit
from core.operations.audit import Actor
from core.webhooks import redelivery, subscriptions
from core.webhooks.models import WebhookDelivery, WebhookEndpoint


async def retry_job(session: AsyncSession, actor: Actor, tenant_id: str, job_id: str, *, limits: QueueLimits) -> Job:
    """Try a job again: a new one, which the tenant pays for. Raises what `core.jobs.retrying` raises."""
    job = await retrying.retry(session, tenant_id, job_id, limits=limits)
    noting = partial(audit.note, tenant_id=tenant_id, after={"job_id": job.id})
    await session.run_sync(noting, actor, "job.retried", job_id)
    return job


async def resend(
    session: AsyncSession, actor: Actor, tenant_id: str, endpoint_id: str, delivery_id: str
) -> WebhookDelivery:
    """Send an event once more. Raises NotFound, WebhookEndpointDisabled."""
    delivery = await redelivery.resend(session, endpoint_id, delivery_id)
    noting = partial(audit.note, tenant_id=tenant_id, after={"endpoint_id": endpoint_id})
    await session.run_sync(noting, actor, "webhook_delivery.resent", delivery_id)
    return delivery


async def enable_endpoint(session: AsyncSession, actor: Actor, tenant_id: str, endpoint_id: str) -> WebhookEndpoint:
    """Send to an endpoint again, beginning with what was held. Raises NotFound."""
    before = (await subscriptions.get_endpoint(session, endpoint_id)).disabled_reason
    endpoint = await subscriptions.enable_endpoint(session, endpoint_id)
    noting = partial(audit.note, tenant_id=tenant_id, before={"disabled_reason": before})
    await session.run_sync(noting, actor, "webhook_endpoint.enabled", endpoint_id)
    return endpoint
