"""SQL of webhook endpoints and deliveries."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import Select, Text, bindparam, case, func, select, text
from sqlalchemy.dialects.postgresql import ARRAY, JSONB
from sqlalchemy.orm import joinedload
from sqlalchemy.types import BigInteger, Interval

from core.db.paging import Place, nearest_first
from core.db.time import lockstep_now
from core.jobs.models import Event, Job
from core.jobs.statements import OWED
from core.tenants.models import Tenant
from core.webhooks.models import WebhookAttempt, WebhookDelivery, WebhookEndpoint

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


COUNT_ENDPOINTS = text("SELECT count(*) FROM webhook_endpoints WHERE NOT on_request AND deleted_at IS NULL")

DELETE_ENDPOINT = text("""
    UPDATE webhook_endpoints SET deleted_at = lockstep_now() WHERE id = :endpoint_id AND deleted_at IS NULL
    RETURNING id
""")

ROTATE_SECRET = text("""
    UPDATE webhook_endpoints SET secret = :secret,
        previous_secret = CASE WHEN :overlap > interval '0' THEN secret END,
        previous_secret_expires_at = CASE WHEN :overlap > interval '0' THEN lockstep_now() + :overlap END
    WHERE id = :endpoint_id
""").bindparams(bindparam("overlap", type_=Interval()))

FORGET_SECRETS = text("""
    UPDATE webhook_endpoints SET previous_secret = NULL, previous_secret_expires_at = NULL
    WHERE previous_secret_expires_at <= lockstep_now() RETURNING 1
""")

LISTEN_ANEW = text("UPDATE webhook_endpoints SET listening_since = lockstep_now() WHERE id = :endpoint_id")

# --- webhooks that requests name --------------------------------------------------------------------------------

KEEP_TENANT_SECRET = text(
    "UPDATE tenants SET webhook_secret = :secret WHERE id = :tenant_id AND webhook_secret IS NULL"
)


def tenant_secret(tenant_id: str) -> Select[str | None, datetime | None]:
    """What signs them, and until when the secret before does."""
    return select(Tenant.webhook_secret, Tenant.previous_webhook_secret_expires_at).where(Tenant.id == tenant_id)


ROTATE_TENANT_SECRET = text("""
    UPDATE tenants SET webhook_secret = :secret,
        previous_webhook_secret = CASE WHEN :overlap > interval '0' THEN webhook_secret END,
        previous_webhook_secret_expires_at = CASE WHEN :overlap > interval '0' THEN lockstep_now() + :overlap END
    WHERE id = :tenant_id
""").bindparams(bindparam("overlap", type_=Interval()))

FORGET_TENANT_SECRETS = text("""
    UPDATE tenants SET previous_webhook_secret = NULL, previous_webhook_secret_expires_at = NULL
    WHERE previous_webhook_secret_expires_at <= lockstep_now() RETURNING 1
""")

FIND_HOST = text("""
    SELECT id FROM webhook_endpoints WHERE tenant_id = :tenant_id AND url = :url AND on_request AND deleted_at IS NULL
""")

ADD_HOST = text("""
    INSERT INTO webhook_endpoints (id, tenant_id, name, url, event_types, on_request)
    SELECT :id, :tenant_id, '', :url, '{}', true
    WHERE :most > (
        SELECT count(*) FROM webhook_endpoints WHERE tenant_id = :tenant_id AND on_request AND deleted_at IS NULL)
    ON CONFLICT DO NOTHING
""")

# Nothing more is sent there, which is told to whoever else listens. `failing_for` asks that it has failed for so long.
DISABLE = text(
    """
    WITH happened AS (
        UPDATE webhook_endpoints SET disabled_at = lockstep_now(), disabled_reason = :reason
        WHERE id = :endpoint_id AND disabled_at IS NULL AND deleted_at IS NULL
          AND (CAST(:failing_for AS interval) IS NULL OR failing_since <= lockstep_now() - :failing_for)
        RETURNING *),
    written AS (
        INSERT INTO events (id, tenant_id, sequence, type, data)
        SELECT :event_id, tenant_id, 1, :type, jsonb_strip_nulls(jsonb_build_object(
            'id', id, 'object', 'webhook_endpoint', 'name', name, 'url', url,
            'disabled_at', to_jsonb(disabled_at), 'disabled_reason', disabled_reason,
            'failing_since', to_jsonb(failing_since)))
        FROM happened RETURNING id, tenant_id, job_id, type),
"""
    + OWED
    + " SELECT id FROM happened"
).bindparams(bindparam("failing_for", type_=Interval()))

ENABLE = text("""
    UPDATE webhook_endpoints SET disabled_at = NULL, disabled_reason = NULL, failing_since = NULL, quiet_until = NULL
    WHERE id = :endpoint_id
""")

# What is owed waits for the endpoint to be enabled; what is under way ends first, but for `ids`.
HOLD = text("""
    UPDATE webhook_deliveries SET state = 'held', next_attempt_at = NULL, lease_token = NULL
    WHERE endpoint_id = :endpoint_id AND state = 'pending' AND (lease_token IS NULL OR id = ANY (:ids))
""").bindparams(bindparam("ids", type_=ARRAY(Text())))

# What is held for endpoints that are not disabled any more is owed again, the oldest first.
RELEASE = text("""
    WITH RECURSIVE holding (endpoint_id) AS (
        (SELECT endpoint_id FROM webhook_deliveries WHERE state = 'held' ORDER BY endpoint_id LIMIT 1)
        UNION ALL
        SELECT (SELECT d.endpoint_id FROM webhook_deliveries d
                WHERE d.state = 'held' AND d.endpoint_id > h.endpoint_id ORDER BY d.endpoint_id LIMIT 1)
        FROM holding h WHERE h.endpoint_id IS NOT NULL),
    chosen AS (
        SELECT d.id FROM holding h
        JOIN webhook_endpoints e ON e.id = h.endpoint_id AND e.disabled_at IS NULL AND e.deleted_at IS NULL
        CROSS JOIN LATERAL (
            SELECT id FROM webhook_deliveries WHERE endpoint_id = e.id AND state = 'held'
            ORDER BY created_at, id LIMIT :limit FOR UPDATE SKIP LOCKED) d)
    UPDATE webhook_deliveries d SET state = 'pending', next_attempt_at = lockstep_now(), attempts_before = d.attempt
    FROM chosen WHERE d.id = chosen.id AND d.state = 'held'
    RETURNING 1
""")

# --- deliveries -------------------------------------------------------------------------------------------------


def delivery_by_id(delivery_id: str) -> Select[WebhookDelivery]:
    """One delivery, as the session's tenant sees it."""
    return select(WebhookDelivery).where(WebhookDelivery.id == delivery_id).options(joinedload(WebhookDelivery.event))


def deliveries_page(
    *, endpoint_id: str, state: str | None, after: Place | None, before: Place | None, limit: int
) -> Select[WebhookDelivery]:
    """An endpoint's deliveries, all or those of a state, nearest to a place first."""
    found = select(WebhookDelivery).where(WebhookDelivery.endpoint_id == endpoint_id)
    return nearest_first(
        (found if state is None else found.where(WebhookDelivery.state == state)).options(
            joinedload(WebhookDelivery.event)
        ),
        WebhookDelivery.created_at,
        WebhookDelivery.id,
        after=after,
        before=before,
        limit=limit,
    )


def attempts_of(delivery_id: str) -> Select[WebhookAttempt]:
    """A delivery's attempts in order."""
    return select(WebhookAttempt).where(WebhookAttempt.delivery_id == delivery_id).order_by(WebhookAttempt.attempt)


# Owed anew, with all its attempts before it; what is under way is left to end.
RESEND = text("""
    UPDATE webhook_deliveries SET state = 'pending', next_attempt_at = lockstep_now(), attempts_before = attempt,
        lease_token = NULL, delivered_at = NULL
    WHERE id = :delivery_id AND (lease_token IS NULL OR next_attempt_at <= lockstep_now())
""")

# The same for what was given up, of events that happened between two times, the oldest first.
RESEND_FAILED = text("""
    WITH chosen AS (
        SELECT d.id FROM webhook_deliveries d JOIN events e ON e.id = d.event_id
        WHERE d.endpoint_id = :endpoint_id AND d.state = 'failed' AND e.created_at >= :since AND e.created_at < :until
        ORDER BY d.created_at, d.id LIMIT :limit FOR UPDATE OF d)
    UPDATE webhook_deliveries d SET state = 'pending', next_attempt_at = lockstep_now(), attempts_before = d.attempt
    FROM chosen WHERE d.id = chosen.id AND d.state = 'failed'
    RETURNING 1
""")

# Deliveries of what happened between two times and was never owed to the endpoint, though it wants to know now.
ADD_MISSED = text("""
    INSERT INTO webhook_deliveries (id, tenant_id, endpoint_id, event_id)
    SELECT 'dlv_' || md5(e.id || w.id), w.tenant_id, e.id, w.id
    FROM webhook_endpoints e JOIN events w ON w.tenant_id = e.tenant_id
    WHERE e.id = :endpoint_id AND NOT e.on_request
      AND w.created_at >= :since AND w.created_at < :until AND w.type <> :of_others
      AND (e.event_types = '{}' OR w.type = ANY (e.event_types))
      AND NOT EXISTS (SELECT 1 FROM webhook_deliveries d WHERE d.event_id = w.id AND d.endpoint_id = e.id)
    ORDER BY w.created_at, w.id LIMIT :limit
    ON CONFLICT DO NOTHING
    RETURNING 1
""")

# An event for one endpoint alone, whatever types it wants.
TELL = text("""
    WITH written AS (
        INSERT INTO events (id, tenant_id, sequence, type, data)
        SELECT :event_id, tenant_id, 1, :type, jsonb_build_object(
            'id', id, 'object', 'webhook_endpoint', 'name', name, 'url', url)
        FROM webhook_endpoints WHERE id = :endpoint_id RETURNING id, tenant_id)
    INSERT INTO webhook_deliveries (id, tenant_id, endpoint_id, event_id)
    SELECT 'dlv_' || md5(:endpoint_id || id), tenant_id, :endpoint_id, id FROM written
    RETURNING id
""")

# --- sending ----------------------------------------------------------------------------------------------------

# A fair handful of what is due. The recursion steps from endpoint to endpoint through the index of owed deliveries,
# so one with a long backlog costs as much as one with a single delivery, and takes no more than its own places.
# Tenants take turns (`turn`); endpoints that fail share a part of all places (`failing`). An event of a job waits for
# those before it where the endpoint wants them in order: their ids differ in the last six digits only. The lease is the
# next attempt's time: a sender that dies is simply late.
CLAIM_DELIVERIES = text("""
    WITH RECURSIVE owing (endpoint_id) AS (
        (SELECT endpoint_id FROM webhook_deliveries WHERE state = 'pending' ORDER BY endpoint_id LIMIT 1)
        UNION ALL
        SELECT (SELECT d.endpoint_id FROM webhook_deliveries d
                WHERE d.state = 'pending' AND d.endpoint_id > o.endpoint_id ORDER BY d.endpoint_id LIMIT 1)
        FROM owing o WHERE o.endpoint_id IS NOT NULL),
    due AS (
        SELECT d.id, d.tenant_id, d.next_attempt_at, e.failing_since IS NOT NULL AS failing,
            row_number() OVER (
                PARTITION BY d.tenant_id, e.failing_since IS NOT NULL ORDER BY d.next_attempt_at) AS nth
        FROM owing o JOIN webhook_endpoints e ON e.id = o.endpoint_id
            AND (e.quiet_until IS NULL OR e.quiet_until <= lockstep_now())
        CROSS JOIN LATERAL (
            SELECT id, tenant_id, next_attempt_at FROM webhook_deliveries d
            WHERE endpoint_id = o.endpoint_id AND state = 'pending' AND next_attempt_at <= lockstep_now()
              AND NOT (e.in_order AND EXISTS (
                SELECT 1 FROM webhook_deliveries p
                WHERE p.endpoint_id = d.endpoint_id AND p.state IN ('pending', 'held')
                  AND p.event_id >= left(d.event_id, -6) AND p.event_id < d.event_id))
            ORDER BY next_attempt_at
            LIMIT greatest(0, - coalesce((:in_flight ->> o.endpoint_id)::bigint, 0)
                + CASE WHEN e.failing_since IS NULL THEN :per_endpoint
                    ELSE greatest(1, :per_endpoint / :failing_share) END)) d),
    fair AS (
        SELECT *, row_number() OVER (PARTITION BY tenant_id ORDER BY next_attempt_at) AS turn FROM due
        WHERE NOT failing
           OR nth <= greatest(1, :per_tenant / :failing_share)
            - coalesce((:in_flight ->> ('failing:' || tenant_id))::bigint, 0)),
    counted AS (
        SELECT *, row_number() OVER (PARTITION BY failing ORDER BY turn, next_attempt_at) AS place FROM fair
        WHERE turn <= :per_tenant - coalesce((:in_flight ->> tenant_id)::bigint, 0)),
    chosen AS (
        SELECT id FROM counted
        WHERE NOT failing
           OR place <= greatest(1, :in_all / :failing_share) - coalesce((:in_flight ->> 'failing')::bigint, 0)
        ORDER BY turn, next_attempt_at LIMIT :room),
    locked AS (
        SELECT id FROM webhook_deliveries
        WHERE id IN (SELECT id FROM chosen) AND state = 'pending' AND next_attempt_at <= lockstep_now()
        FOR UPDATE SKIP LOCKED)
    UPDATE webhook_deliveries d SET lease_token = nextval('fence'), next_attempt_at = lockstep_now() + :lease
    FROM locked WHERE d.id = locked.id
    -- The receivers' clocks know no offset, so neither does the time that is signed.
    RETURNING d.id, d.lease_token AS token, statement_timestamp() AS claimed_at
""").bindparams(bindparam("in_flight", type_=JSONB))


def claimed_deliveries(
    ids: list[str],
) -> Select[WebhookDelivery, WebhookEndpoint, Event, str, str, str | None, str | None]:
    """Deliveries with what sending them takes: where to, the secret, the one before while it is good, and the trace."""
    requested = WebhookEndpoint.on_request
    previous = case(
        (WebhookEndpoint.previous_secret_expires_at > lockstep_now(), WebhookEndpoint.previous_secret),
        (
            requested & (Tenant.previous_webhook_secret_expires_at > lockstep_now()),
            Tenant.previous_webhook_secret,
        ),
    )
    url = case((requested, Job.webhook["url"].astext), else_=WebhookEndpoint.url)
    secret = func.coalesce(WebhookEndpoint.secret, Tenant.webhook_secret)
    return (
        select(WebhookDelivery, WebhookEndpoint, Event, url, secret, previous, Job.traceparent)
        .join(WebhookEndpoint, WebhookEndpoint.id == WebhookDelivery.endpoint_id)
        .join(Tenant, Tenant.id == WebhookDelivery.tenant_id)
        .join(Event, Event.id == WebhookDelivery.event_id)
        .outerjoin(Job, Job.id == Event.job_id)
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

NOTE_ACCEPTANCE = text("""
    UPDATE webhook_endpoints SET failing_since = NULL WHERE id = :endpoint_id AND failing_since IS NOT NULL
""")

NOTE_FAILURE = text("""
    UPDATE webhook_endpoints SET failing_since = coalesce(failing_since, lockstep_now()),
        quiet_until = greatest(quiet_until, lockstep_now() + :quiet)
    WHERE id = :endpoint_id AND (failing_since IS NULL OR CAST(:quiet AS interval) IS NOT NULL)
""").bindparams(bindparam("quiet", type_=Interval()))

# Where events are wanted in order, those that come after one that is under way or has failed are put off until its
# time, lest each claim look at all of them.
PUT_OFF = text("""
    WITH behind AS (
        SELECT d.id, p.until FROM webhook_endpoints e
        JOIN webhook_deliveries d ON d.endpoint_id = e.id AND d.state = 'pending' AND d.lease_token IS NULL
            AND d.next_attempt_at <= lockstep_now()
        CROSS JOIN LATERAL (
            SELECT max(next_attempt_at) AS until FROM webhook_deliveries
            WHERE endpoint_id = d.endpoint_id AND state = 'pending'
              AND event_id >= left(d.event_id, -6) AND event_id < d.event_id) p
        WHERE e.in_order AND p.until > lockstep_now() LIMIT :limit)
    UPDATE webhook_deliveries d SET next_attempt_at = behind.until FROM behind
    WHERE d.id = behind.id AND d.state = 'pending' AND d.lease_token IS NULL
    RETURNING 1
""")

# The one that waited for one that has ended.
CALL_NEXT = text("""
    UPDATE webhook_deliveries SET next_attempt_at = lockstep_now()
    WHERE state = 'pending' AND lease_token IS NULL AND next_attempt_at > lockstep_now() AND id = (
        SELECT id FROM webhook_deliveries
        WHERE endpoint_id = :endpoint_id AND event_id > :event_id AND event_id < left(:event_id, -6) || ':'
          AND state = 'pending'
        ORDER BY event_id LIMIT 1)
""")

# What is still owed to an endpoint that nobody wants any more.
ABANDON = text("""
    UPDATE webhook_deliveries SET state = 'failed', next_attempt_at = NULL, lease_token = NULL
    WHERE endpoint_id = :endpoint_id AND state = 'pending'
""")
