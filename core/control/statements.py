"""SQL of cancelling, pausing and families of jobs; ``verbs`` and ``families`` say in which transaction.

Rules kept here as in the queue's own: a job's row is locked before its queue row, and a parent before its children.
"""

from __future__ import annotations

from sqlalchemy import DateTime, Text, bindparam, text
from sqlalchemy.dialects.postgresql import ARRAY, JSONB

from core.budgets.statements import CLOSE

_IDS = bindparam("ids", type_=ARRAY(Text()))

# --- cancel and pause -------------------------------------------------------------------------------------------

# A job and those made for it, locked in the order in which everybody locks several: parents first, then by id.
LOCK_FAMILY = text("""
    SELECT id, state, pause_requested_at IS NOT NULL AS paused FROM jobs
    WHERE (id = :job_id OR parent_id = :job_id) AND state IN ('queued', 'running')
    ORDER BY parent_id NULLS FIRST, id FOR UPDATE
""")

_CLOSING = "*, NULL::bigint AS token"  # no attempt ended it

CANCEL_QUEUED = text(f"""
    WITH moved AS (
        UPDATE jobs SET state = 'canceled', not_before = NULL, pause_requested_at = NULL, blocked = false,
            cancel_requested_at = lockstep_now(), finished_at = lockstep_now(),
            charged_ms = least(charged_ms, CASE WHEN quote_id IS NOT NULL THEN reserved_ms END)
        WHERE id = ANY (:ids) AND state = 'queued' RETURNING *),
    closing AS (SELECT {_CLOSING} FROM moved),
    {CLOSE}
    SELECT id FROM moved
""").bindparams(_IDS)

REQUEST_CANCEL = text("""
    UPDATE jobs SET cancel_requested_at = coalesce(cancel_requested_at, lockstep_now())
    WHERE id = ANY (:ids) AND state = 'running'
""").bindparams(_IDS)

# Why they are canceled, where nobody who has them asked for it.
EXPLAIN_CANCEL = text("""
    UPDATE jobs SET error = CAST(:error AS jsonb) WHERE id = ANY (:ids) AND state IN ('queued', 'running')
""").bindparams(_IDS, bindparam("error", type_=JSONB))

PAUSE = text("UPDATE jobs SET pause_requested_at = lockstep_now() WHERE id = ANY (:ids)").bindparams(_IDS)

# A paused job has no queue row; the promoter makes one for whatever is due.
RESUME = text("""
    UPDATE jobs SET pause_requested_at = NULL,
        not_before = CASE WHEN state = 'queued' AND NOT blocked THEN coalesce(not_before, lockstep_now()) END
    WHERE id = ANY (:ids)
""").bindparams(_IDS)

# --- making way -------------------------------------------------------------------------------------------------

# In each pool where generations wait and nobody is idle: the longest running worker with long work that has had its
# time and has not made way too often. One worker at a time: the next pass sees whether that was enough.
ASK_TO_YIELD = text("""
    WITH busy AS MATERIALIZED (
        SELECT id, pool, worker_id, kind, started_at, yields, yield_requested_at,
            cancel_requested_at IS NULL AND pause_requested_at IS NULL AS is_wanted
        FROM jobs WHERE state = 'running'),
    pressed AS (
        SELECT p.name FROM pools p
        WHERE p.paused_at IS NULL AND p.name IN (SELECT pool FROM busy WHERE kind IN ('training', 'distillation'))
          AND NOT EXISTS (SELECT 1 FROM busy b WHERE b.pool = p.name AND b.yield_requested_at IS NOT NULL)
          AND NOT EXISTS (
            SELECT 1 FROM workers w
            WHERE w.pool = p.name AND w.state = 'idle' AND w.heartbeat_at > lockstep_now() - :fresh)
          AND EXISTS (
            -- Not from standings alone: nobody folds the notes of those who woke while all workers are busy.
            SELECT 1 FROM tenant_pools c JOIN tenant_sched s ON s.pool = c.pool AND s.tenant_id = c.tenant_id
            WHERE c.pool = p.name AND c.paused_at IS NULL AND s.running < c.max_running
              AND EXISTS (
                SELECT 1 FROM ready r
                WHERE r.pool = c.pool AND r.tenant_id = c.tenant_id
                  AND r.lane >= 'generation:' AND r.lane < 'generation;' AND r.ready_at <= lockstep_now() - :waited
                  AND NOT EXISTS (SELECT 1 FROM models m WHERE m.id = r.model_id AND m.paused_at IS NOT NULL)))),
    chosen AS (
        SELECT DISTINCT ON (pool) pool, worker_id FROM (
            SELECT pool, worker_id, min(started_at) AS since FROM busy WHERE pool IN (SELECT name FROM pressed)
            GROUP BY pool, worker_id
            HAVING bool_and(kind IN ('training', 'distillation') AND started_at <= lockstep_now() - :least
                AND yields < :most AND is_wanted)) w
        ORDER BY pool, since),
    held AS (
        SELECT j.id FROM jobs j JOIN chosen USING (pool, worker_id) WHERE j.state = 'running'
        ORDER BY j.id FOR UPDATE OF j SKIP LOCKED)
    UPDATE jobs j SET yield_requested_at = lockstep_now() FROM held WHERE j.id = held.id
    RETURNING j.id
""")

# --- deadlines --------------------------------------------------------------------------------------------------

# Parents first, then by id, as everybody locks several.
LOCK_OVERDUE = text("""
    SELECT id, state FROM jobs
    WHERE deadline_at <= lockstep_now() AND state IN ('queued', 'running')
      AND (state = 'queued' OR cancel_requested_at IS NULL)
    ORDER BY parent_id NULLS FIRST, id LIMIT :limit FOR UPDATE SKIP LOCKED
""")

EXPIRE_QUEUED = text(f"""
    WITH moved AS (
        UPDATE jobs SET state = 'expired', not_before = NULL, pause_requested_at = NULL, blocked = false,
            charged_ms = 0, error = CAST(:error AS jsonb), finished_at = lockstep_now()
        WHERE id = ANY (:ids) AND state = 'queued' RETURNING *),
    closing AS (SELECT {_CLOSING} FROM moved),
    {CLOSE}
    SELECT id FROM moved
""").bindparams(_IDS, bindparam("error", type_=JSONB))

CANCEL_OVERDUE = text("""
    UPDATE jobs SET cancel_requested_at = lockstep_now(), error = CAST(:error AS jsonb)
    WHERE id = ANY (:ids) AND state = 'running'
""").bindparams(_IDS, bindparam("error", type_=JSONB))

# --- many at once -----------------------------------------------------------------------------------------------

_CHOSEN = """
    kind = ANY (:kinds) AND state = ANY (:states)
    AND (CAST(:model_id AS text) IS NULL OR model_id = :model_id)
    AND (CAST(:created_after AS timestamptz) IS NULL OR created_at >= :created_after)
    AND (CAST(:created_before AS timestamptz) IS NULL OR created_at < :created_before)
"""
_FILTER = (
    bindparam("kinds", type_=ARRAY(Text())),
    bindparam("states", type_=ARRAY(Text())),
    bindparam("model_id", type_=Text()),
    bindparam("created_after", type_=DateTime(timezone=True)),
    bindparam("created_before", type_=DateTime(timezone=True)),
)

# Jobs that may be canceled, oldest first; one more than the limit tells that there are others.
CANCELABLE = text(f"""
    SELECT id FROM jobs WHERE {_CHOSEN} AND cancel_requested_at IS NULL
    ORDER BY created_at, id LIMIT :limit
""").bindparams(*_FILTER)

# Those made for another job are not tried again by themselves, and nothing is tried again twice.
RETRYABLE = text(f"""
    SELECT id FROM jobs j WHERE {_CHOSEN} AND parent_id IS NULL
      AND NOT EXISTS (SELECT 1 FROM jobs r WHERE r.tenant_id = j.tenant_id AND r.retry_of = j.id)
    ORDER BY created_at, id LIMIT :limit
""").bindparams(*_FILTER)

LOCK_FAMILIES = text("""
    SELECT id, state, pause_requested_at IS NOT NULL AS paused FROM jobs
    WHERE (id = ANY (:ids) OR parent_id = ANY (:ids)) AND state IN ('queued', 'running')
    ORDER BY parent_id NULLS FIRST, id FOR UPDATE
""").bindparams(_IDS)

# --- jobs that wait for others ----------------------------------------------------------------------------------

# A blocked job whose children have all succeeded, or one of which never will, with the first of those.
SETTLED_FAMILY = text("""
    SELECT p.id, bool_and(c.state = 'succeeded') AS complete,
        (array_agg(c.id ORDER BY c.finished_at)
            FILTER (WHERE c.state IN ('failed', 'canceled', 'expired')))[1] AS culprit
    FROM jobs p JOIN jobs c ON c.parent_id = p.id
    WHERE p.blocked
    GROUP BY p.id
    HAVING bool_and(c.state = 'succeeded') OR bool_or(c.state IN ('failed', 'canceled', 'expired'))
    ORDER BY p.id LIMIT 1
""")

UNBLOCK = text("""
    UPDATE jobs SET blocked = false, not_before = lockstep_now() WHERE id = :job_id AND blocked RETURNING id
""")

FAIL_BLOCKED = text(f"""
    WITH moved AS (
        UPDATE jobs SET state = 'failed', blocked = false, pause_requested_at = NULL, charged_ms = 0,
            error = CAST(:error AS jsonb), finished_at = lockstep_now()
        WHERE id = :job_id AND blocked RETURNING *),
    closing AS (SELECT {_CLOSING} FROM moved),
    {CLOSE}
    SELECT id FROM moved
""").bindparams(bindparam("error", type_=JSONB))

CHILD_RESULTS = text("""
    SELECT id, params, result FROM jobs WHERE parent_id = :job_id AND state = 'succeeded' ORDER BY id
""")

PARAMS = text("SELECT params FROM jobs WHERE id = :job_id")
