"""`/v1/webhook_secret`: what signs the webhooks that requests name for their jobs."""

from __future__ import annotations

from datetime import timedelta
from functools import partial

from fastapi import APIRouter

from api.dependencies import Acting, Administrator, TenantSession
from api.schemas.webhook_endpoints import RotateSecret, WebhookSecret
from core.operations import audit
from core.webhooks import requested
from core.webhooks.subscriptions import OVERLAP

router = APIRouter(prefix="/v1/webhook_secret", tags=["Webhooks"])


@router.get("")
async def get_webhook_secret(caller: Administrator, session: TenantSession) -> WebhookSecret:
    """Get the secret that signs the webhooks of requests. It is the tenant's own, and made at the first look."""
    return WebhookSecret.of(await requested.secret_of(session, caller.tenant_id))


@router.post("/rotate")
async def rotate_webhook_secret(
    caller: Administrator, session: TenantSession, actor: Acting, body: RotateSecret | None = None
) -> WebhookSecret:
    """Replace it. For a day every webhook of a request has two signatures, one by each secret."""
    keep = (body or RotateSecret()).keep_old_secret_active_for_24_hours
    overlap = OVERLAP if keep else timedelta(0)
    rotated = await requested.rotate_secret(session, caller.tenant_id, overlap=overlap)
    noting = partial(audit.note, tenant_id=caller.tenant_id, after={"keep_old_secret_active_for_24_hours": keep})
    await session.run_sync(noting, actor, "webhook_secret.rotated", caller.tenant_id)
    return WebhookSecret.of(rotated)
