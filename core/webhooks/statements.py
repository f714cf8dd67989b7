"""SQL of webhook endpoints and deliveries."""

from __future__ import annotations

from sqlalchemy import Select, Text, bindparam, select, text
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.types import BigInteger, Interval

from core.db.paging import Place, nearest_first
from core.jobs.models import Event
from core.webhooks.models import WebhookDelivery, WebhookEndpoint

# --- endpoints --------------------------------------------------------------------------------------------------


def endpoint_by_id(endpoint_id: str) -> Select[WebhookEndpoint]:
    """One endpoint that still exists, as the session's tenant sees it."""
    return select(WebhookEndpoint).where(WebhookEndpoint.id == endpoint_id, WebhookEndpoint.deleted_at.is_(None))


def endpoints_page(*, after: Place | None, before: Place | None, limit: int) -> Select[WebhookEndpoint]:
    """The endpoints that still exist, nearest to a place first."""
    return nearest_first(
        select(WebhookEndpoint).where(WebhookEndpoint.deleted_at.is_(None)),
        WebhookEndpoint.created_at,
        WebhookEndpoint.id,
        after=after,
        before=before,
        limit=limit,
    )


DELETE_ENDPOINT = text("""
    UPDATE webhook_endpoints SET deleted_at = lockstep_now() WHERE id = :endpoint_id AND deleted_at IS NULL
    RETURNING id
""")


def delivery_by_id(delivery_id: str) -> Select[WebhookDelivery]:
    """One delivery, as the session's tenant sees it."""
    return select(WebhookDelivery).where(WebhookDelivery.id == delivery_id)


def deliveries_page(
    *, endpoint_id: str, after: Place | None, before: Place | None, limit: int
) -> Select[WebhookDelivery]:
    """An endpoint's deliveries, nearest to a place first."""
    return nearest_first(
        select(WebhookDelivery).where(WebhookDelivery.endpoint_id == endpoint_id),
        WebhookDelivery.created_at,
        WebhookDelivery.id,
        after=after,
        before=before,
        limit=limit,
    )


# --- sending ----------------------------------------------------------------------------------------------------

# A fair handful of what is due. The recursion steps from endpoint to endpoint through the index of owed deliveries,
# so one with a long backlog costs as much as one with a single delivery, and takes no more than its own places.
# Tenants take turns (`turn`). The lease is the next attempt's time: a sender that dies is simply late.
CLAIM_DELIVERIES = text("""
    WITH RECURSIVE owing (endpoint_id) AS (
        (SELECT endpoint_id FROM webhook_deliveries WHERE state = 'pending' ORDER BY endpoint_id LIMIT 1)
        UNION ALL
        SELECT (SELECT d.endpoint_id FROM webhook_deliveries d
                WHERE d.state = 'pending' AND d.endpoint_id > o.endpoint_id ORDER BY d.endpoint_id LIMIT 1)
        FROM owing o WHERE o.endpoint_id IS NOT NULL),
    due AS (
        SELECT d.id, d.next_attempt_at,
            row_number() OVER (PARTITION BY d.tenant_id ORDER BY d.next_attempt_at) AS turn,
            :per_tenant - coalesce((:in_flight ->> d.tenant_id)::bigint, 0) AS tenant_room
        FROM owing o CROSS JOIN LATERAL (
            SELECT id, tenant_id, next_attempt_at FROM webhook_deliveries
            WHERE endpoint_id = o.endpoint_id AND state = 'pending' AND next_attempt_at <= lockstep_now()
            ORDER BY next_attempt_at
            LIMIT greatest(0, :per_endpoint - coalesce((:in_flight ->> o.endpoint_id)::bigint, 0))) d),
    chosen AS (
        SELECT id FROM due WHERE turn <= tenant_room ORDER BY turn, next_attempt_at LIMIT :room),
    locked AS (
        SELECT id FROM webhook_deliveries
        WHERE id IN (SELECT id FROM chosen) AND state = 'pending' AND next_attempt_at <= lockstep_now()
        FOR UPDATE SKIP LOCKED)
    UPDATE webhook_deliveries d SET lease_token = nextval('fence'), next_attempt_at = lockstep_now() + :lease
    FROM locked WHERE d.id = locked.id
    -- The receivers' clocks know no offset, so neither does the time that is signed.
    RETURNING d.id, d.lease_token AS token, statement_timestamp() AS claimed_at
""").bindparams(bindparam("in_flight", type_=JSONB))


def claimed_deliveries(ids: list[str]) -> Select[WebhookDelivery, WebhookEndpoint, Event]:
    """Deliveries with what sending them takes."""
    return (
        select(WebhookDelivery, WebhookEndpoint, Event)
        .join(WebhookEndpoint, WebhookEndpoint.id == WebhookDelivery.endpoint_id)
        .join(Event, Event.id == WebhookDelivery.event_id)
        .where(WebhookDelivery.id.in_(ids))
    )


# One attempt and what it changes, unless the lease was lost meanwhile.
RECORD_ATTEMPT = text("""
    WITH moved AS (
        UPDATE webhook_deliveries SET state = :state, attempt = attempt + 1, lease_token = NULL,
            next_attempt_at = lockstep_now() + :delay,
            delivered_at = CASE WHEN :state = 'delivered' THEN lockstep_now() END
        WHERE id = :delivery_id AND state = 'pending' AND lease_token = :token
        RETURNING id, tenant_id, attempt)
    INSERT INTO webhook_attempts (delivery_id, attempt, tenant_id, status, error, duration_ms)
    SELECT id, attempt, tenant_id, :status, :error, :duration_ms FROM moved
    RETURNING attempt
""").bindparams(
    bindparam("state", type_=Text()),
    bindparam("delay", type_=Interval()),  # null once nothing follows
    bindparam("status", type_=BigInteger()),
    bindparam("error", type_=Text()),
)

# What is still owed to an endpoint that nobody wants any more.
ABANDON = text("""
    UPDATE webhook_deliveries SET state = 'failed', next_attempt_at = NULL, lease_token = NULL
    WHERE endpoint_id = :endpoint_id AND state = 'pending'
""")
