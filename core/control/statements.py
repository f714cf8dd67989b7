"""SQL of cancelling, pausing and families of jobs; ``verbs`` and ``families`` say in which transaction.

Rules kept here as in the queue's own: a job's row is locked before its queue row, and a parent before its children.
"""

from __future__ import annotations

from sqlalchemy import Text, bindparam, text
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

PAUSE = text("UPDATE jobs SET pause_requested_at = lockstep_now() WHERE id = ANY (:ids)").bindparams(_IDS)

# A paused job has no queue row; the promoter makes one for whatever is due.
RESUME = text("""
    UPDATE jobs SET pause_requested_at = NULL,
        not_before = CASE WHEN state = 'queued' AND NOT blocked THEN coalesce(not_before, lockstep_now()) END
    WHERE id = ANY (:ids)
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
