"""SQL of maintenance: the leader's lock, and what is thrown away when it is old."""

from __future__ import annotations

from sqlalchemy import BigInteger, Text, bindparam, text
from sqlalchemy.dialects.postgresql import ARRAY

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

DELETE_OLD_QUOTES = text("""
    DELETE FROM quotes WHERE id IN (
        SELECT id FROM quotes WHERE expires_at < lockstep_now() - :age
        ORDER BY expires_at LIMIT :limit FOR UPDATE SKIP LOCKED)
    RETURNING 1
""")

# Uploads that were never completed, and those that were long ago.
DELETE_OLD_UPLOADS = text("""
    DELETE FROM uploads WHERE id IN (
        SELECT id FROM uploads WHERE expires_at < lockstep_now()
        ORDER BY expires_at LIMIT :limit FOR UPDATE SKIP LOCKED)
    RETURNING key
""")

# What let somebody in, or was to, and the tries of those who were not let in.

DELETE_ENDED_SESSIONS = text("""
    DELETE FROM user_sessions WHERE id IN (
        SELECT id FROM user_sessions WHERE expires_at < lockstep_now()
        ORDER BY expires_at LIMIT :limit FOR UPDATE SKIP LOCKED)
    RETURNING 1
""")

DELETE_OLD_INVITATIONS = text("""
    DELETE FROM invitations WHERE id IN (
        SELECT id FROM invitations WHERE expires_at < lockstep_now()
        ORDER BY expires_at LIMIT :limit FOR UPDATE SKIP LOCKED)
    RETURNING 1
""")

DELETE_OLD_TRIES = text("""
    DELETE FROM sign_in_tries WHERE email_sha256 IN (
        SELECT email_sha256 FROM sign_in_tries WHERE since < lockstep_now() - :age
        ORDER BY since LIMIT :limit FOR UPDATE SKIP LOCKED)
    RETURNING 1
""")

# Each tenant has its own time to keep things, which its row may say, and its own index to find them by. What is kept
# for ever, by a time of 0, is never looked at.

# An event goes with its deliveries and their attempts, once nothing of it is owed any more.
DELETE_OLD_EVENTS = text("""
    WITH old AS MATERIALIZED (
        SELECT e.id FROM tenants t CROSS JOIN LATERAL (
            SELECT id FROM events
            WHERE tenant_id = t.id
              AND created_at < lockstep_now() - coalesce(t.keep_events_days, :days) * interval '1 day'
              AND NOT EXISTS (
                SELECT 1 FROM webhook_deliveries d WHERE d.event_id = events.id AND d.state = 'pending')
            ORDER BY created_at LIMIT :limit) e
        WHERE coalesce(t.keep_events_days, :days) > 0
        LIMIT :limit),
    delivered AS MATERIALIZED (
        SELECT id FROM webhook_deliveries WHERE event_id IN (SELECT id FROM old)),
    no_attempts AS (DELETE FROM webhook_attempts WHERE delivery_id IN (SELECT id FROM delivered)),
    no_deliveries AS (DELETE FROM webhook_deliveries WHERE id IN (SELECT id FROM delivered))
    DELETE FROM events WHERE id IN (SELECT id FROM old)
    RETURNING 1
""")

# A job goes with its attempts and events; its files and versions stay, of no job. Those that a later one names, as its
# parent or as what it tries again, go after it.
DELETE_OLD_JOBS = text("""
    WITH old AS MATERIALIZED (
        SELECT j.id, j.tenant_id FROM tenants t CROSS JOIN LATERAL (
            SELECT id, tenant_id FROM jobs
            WHERE tenant_id = t.id
              AND finished_at < lockstep_now() - coalesce(t.keep_jobs_days, :days) * interval '1 day'
              AND NOT EXISTS (SELECT 1 FROM jobs c WHERE c.parent_id = jobs.id)
              AND NOT EXISTS (SELECT 1 FROM jobs r WHERE r.tenant_id = jobs.tenant_id AND r.retry_of = jobs.id)
              AND NOT EXISTS (
                SELECT 1 FROM events e JOIN webhook_deliveries d ON d.event_id = e.id
                WHERE e.job_id = jobs.id AND d.state = 'pending')
            ORDER BY finished_at LIMIT :limit FOR UPDATE SKIP LOCKED) j
        WHERE coalesce(t.keep_jobs_days, :days) > 0
        LIMIT :limit),
    heard AS MATERIALIZED (SELECT id FROM events WHERE job_id IN (SELECT id FROM old)),
    delivered AS MATERIALIZED (
        SELECT id FROM webhook_deliveries WHERE event_id IN (SELECT id FROM heard)),
    no_tries AS (DELETE FROM webhook_attempts WHERE delivery_id IN (SELECT id FROM delivered)),
    no_deliveries AS (DELETE FROM webhook_deliveries WHERE id IN (SELECT id FROM delivered)),
    no_events AS (DELETE FROM events WHERE id IN (SELECT id FROM heard)),
    no_attempts AS (
        DELETE FROM job_attempts a USING old WHERE a.tenant_id = old.tenant_id AND a.job_id = old.id),
    no_ones AS (
        UPDATE files f SET job_id = NULL FROM old WHERE f.tenant_id = old.tenant_id AND f.job_id = old.id),
    by_hand AS (UPDATE concept_versions v SET job_id = NULL FROM old WHERE v.job_id = old.id)
    DELETE FROM jobs WHERE id IN (SELECT id FROM old)
    RETURNING 1
""")

# What jobs made, but for what a training that is still to run learns from.
DELETE_OLD_FILES = text("""
    WITH learned_from AS MATERIALIZED (
        SELECT jsonb_array_elements_text(params -> 'file_ids') AS id FROM jobs
        WHERE kind = 'training' AND state IN ('queued', 'running')),
    old AS MATERIALIZED (
        SELECT f.id FROM tenants t CROSS JOIN LATERAL (
            SELECT id FROM files
            WHERE tenant_id = t.id AND purpose IN ('output', 'preview')
              AND created_at < lockstep_now() - coalesce(t.keep_files_days, :days) * interval '1 day'
              AND id NOT IN (SELECT id FROM learned_from)
            ORDER BY created_at LIMIT :limit) f
        WHERE coalesce(t.keep_files_days, :days) > 0
        LIMIT :limit)
    DELETE FROM files WHERE id IN (SELECT id FROM old)
    RETURNING key
""")

# Pairs are of use to the distillation that waits for them, and to nobody else.
DELETE_IDLE_PAIRS = text("""
    WITH old AS MATERIALIZED (
        SELECT f.id FROM files f
        WHERE f.purpose = 'pairs' AND NOT EXISTS (
            SELECT 1 FROM jobs c JOIN jobs p ON p.id = c.parent_id
            WHERE c.id = f.job_id AND (p.finished_at IS NULL OR p.finished_at >= lockstep_now() - :age))
        LIMIT :limit)
    DELETE FROM files WHERE id IN (SELECT id FROM old)
    RETURNING key
""")

# --- orphans ----------------------------------------------------------------------------------------------------

# Of these objects those that nothing names: no file, no live job's checkpoint; and that no running attempt wrote.
ORPHANS = text("""
    SELECT o.key FROM unnest(:keys, :job_ids, :tokens) AS o(key, job_id, token)
    WHERE NOT EXISTS (SELECT 1 FROM files f WHERE f.key = o.key)
      AND NOT EXISTS (
        SELECT 1 FROM jobs j
        WHERE j.id = o.job_id AND j.state IN ('queued', 'running')
          AND (j.checkpoint ->> 'key' = o.key OR j.lease_token = o.token))
""").bindparams(
    bindparam("keys", type_=ARRAY(Text())),
    bindparam("job_ids", type_=ARRAY(Text())),
    bindparam("tokens", type_=ARRAY(BigInteger())),
)
