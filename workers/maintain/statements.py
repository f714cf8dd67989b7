"""SQL of maintenance: the leader's lock, and what is thrown away when it is old."""

from __future__ import annotations

from sqlalchemy import text

# --- the leader -------------------------------------------------------------------------------------------------

# Without a word for this long the server ends the session and frees the lock: a leader that froze or was cut off
# is replaced, and finds its session gone when it comes back.
END_WHEN_SILENT = text("SET idle_session_timeout = '10s'")

TRY_TO_LEAD = text("SELECT pg_try_advisory_lock(hashtext('lockstep'), hashtext('maintain'))")

STILL_THERE = text("SELECT 1")

# --- the ringer ------------------------------------------------------------------------------------------------

LISTEN = text("LISTEN lockstep_wake")

# --- what is old ------------------------------------------------------------------------------------------------

DELETE_OLD_KEYS = text("""
    DELETE FROM idempotency_keys WHERE (tenant_id, route, key) IN (
        SELECT tenant_id, route, key FROM idempotency_keys
        WHERE created_at < lockstep_now() - :age ORDER BY created_at LIMIT :limit FOR UPDATE SKIP LOCKED)
    RETURNING 1
""")

# An event goes with its deliveries and their attempts, once nothing of it is owed any more.
DELETE_OLD_EVENTS = text("""
    WITH old AS MATERIALIZED (
        SELECT id FROM events e
        WHERE created_at < lockstep_now() - :age
          AND NOT EXISTS (SELECT 1 FROM webhook_deliveries d WHERE d.event_id = e.id AND d.state = 'pending')
        ORDER BY created_at LIMIT :limit),
    delivered AS MATERIALIZED (
        SELECT id FROM webhook_deliveries WHERE event_id IN (SELECT id FROM old)),
    no_attempts AS (DELETE FROM webhook_attempts WHERE delivery_id IN (SELECT id FROM delivered)),
    no_deliveries AS (DELETE FROM webhook_deliveries WHERE id IN (SELECT id FROM delivered))
    DELETE FROM events WHERE id IN (SELECT id FROM old)
    RETURNING 1
""")
