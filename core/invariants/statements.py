"""SQL of the invariants: each statement returns the ids of what breaks it, at most `:limit` of them.

Each looks at one snapshot, and at what is alive or at the `:newest` rows of a history that grows for ever; so none
costs more with the years, and none mistakes work that is just being committed for a fault.
"""

from __future__ import annotations

from sqlalchemy import BigInteger, Select, Text, bindparam, func, select, text
from sqlalchemy.dialects.postgresql import ARRAY

from core.files.models import File

# --- the queue --------------------------------------------------------------------------------------------------

# Nothing would ever move these: waiting, but neither in the queue nor for a time, a resume or other jobs.
STRANDED_JOBS = text("""
    WITH recent AS (SELECT * FROM jobs ORDER BY id DESC LIMIT :newest)
    SELECT j.id FROM recent j
    WHERE j.state = 'queued' AND j.not_before IS NULL AND j.pause_requested_at IS NULL AND NOT j.blocked
      AND j.key_place IS DISTINCT FROM 'waiting'
      AND NOT EXISTS (SELECT 1 FROM ready r WHERE r.job_id = j.id)
    LIMIT :limit
""")

# Queue rows of jobs that may not be claimed, and second rows of one job.
FALSE_QUEUE_ROWS = text("""
    WITH queued AS (SELECT job_id, count(*) AS times FROM (SELECT job_id FROM ready LIMIT :newest) r GROUP BY job_id)
    SELECT q.job_id FROM queued q LEFT JOIN jobs j ON j.id = q.job_id
    WHERE j.id IS NULL OR q.times > 1 OR j.state <> 'queued' OR j.not_before IS NOT NULL
       OR j.pause_requested_at IS NOT NULL OR j.blocked OR j.key_place = 'waiting'
    LIMIT :limit
""")

# The first of a tenant's jobs that a claim may take.
_WORK = """
    CROSS JOIN LATERAL (
        SELECT min(r.sort_key) AS first_key FROM ready r
        WHERE r.pool = s.pool AND r.tenant_id = s.tenant_id
          AND NOT EXISTS (SELECT 1 FROM models m WHERE m.id = r.model_id AND m.paused_at IS NOT NULL)) work
"""

# Tenants that have work in the queue and sleep.
SLEEPING_TENANTS = text(f"""
    SELECT s.pool || '/' || s.tenant_id FROM tenant_sched s {_WORK}
    WHERE NOT s.active AND work.first_key IS NOT NULL
      AND NOT EXISTS (
        SELECT 1 FROM sched_notes n WHERE n.pool = s.pool AND n.tenant_id = s.tenant_id AND n.wake)
    LIMIT :limit
""")

# Tenants that are awake, and yet no claim sees their work: it lies before where their queue is looked at, or they could
# be served and stand behind the pool's own time; and no note will move them.
TENANTS_BEHIND = text(f"""
    SELECT s.pool || '/' || s.tenant_id FROM tenant_sched s JOIN pools p ON p.name = s.pool {_WORK}
    CROSS JOIN LATERAL (
        SELECT count(*) AS count, min(n.least_key) AS first_key FROM sched_notes n
        WHERE n.pool = s.pool AND n.tenant_id = s.tenant_id) noted
    WHERE s.active AND work.first_key IS NOT NULL AND (
        work.first_key < s.head_key AND coalesce(noted.first_key > work.first_key, true)
        OR NOT s.paused AND s.running < s.max_running AND s.vtime < p.vtime AND noted.count = 0)
    LIMIT :limit
""")

# Tenants whose count of running jobs, with the notes that the next claim folds in, is not the number of their leases.
WRONG_COUNTS = text("""
    WITH leased AS (SELECT pool, tenant_id, count(*) AS jobs FROM jobs WHERE state = 'running' GROUP BY 1, 2),
    noted AS (SELECT pool, tenant_id, sum(released) AS jobs FROM sched_notes GROUP BY 1, 2)
    SELECT s.pool || '/' || s.tenant_id
    FROM tenant_sched s LEFT JOIN leased l USING (pool, tenant_id) LEFT JOIN noted n USING (pool, tenant_id)
    WHERE s.running - coalesce(n.jobs, 0) <> coalesce(l.jobs, 0)
    LIMIT :limit
""")

# What maintenance should have seen to long ago.
OVERDUE_JOBS = text("""
    SELECT id FROM jobs WHERE state = 'running' AND lease_until < lockstep_now() - :patience
    UNION ALL
    SELECT id FROM jobs WHERE not_before < lockstep_now() - :patience
      AND state = 'queued' AND pause_requested_at IS NULL AND NOT blocked AND key_place IS DISTINCT FROM 'waiting'
    UNION ALL
    SELECT p.id FROM jobs p
    WHERE p.blocked AND NOT EXISTS (
        SELECT 1 FROM jobs c WHERE c.parent_id = p.id
          AND (c.state IN ('queued', 'running') OR c.finished_at > lockstep_now() - :patience))
    LIMIT :limit
""")

# --- money ------------------------------------------------------------------------------------------------------

# Reserved for once, settled or released once and only at the end, and charged as the job has it.
UNBALANCED_JOBS = text("""
    WITH recent AS (SELECT * FROM jobs ORDER BY id DESC LIMIT :newest)
    SELECT j.id FROM recent j CROSS JOIN LATERAL (
        SELECT sum(e.reserved_ms) FILTER (WHERE e.kind = 'reserve') AS opened_ms, sum(e.reserved_ms) AS reserved_ms,
            sum(e.charged_ms) AS charged_ms, count(*) FILTER (WHERE e.kind <> 'reserve') AS closings
        FROM ledger_entries e WHERE e.tenant_id = j.tenant_id AND e.job_id = j.id) e
    WHERE e.opened_ms IS DISTINCT FROM j.reserved_ms
       OR e.closings <> (j.finished_at IS NOT NULL)::int
       OR e.reserved_ms <> CASE WHEN j.finished_at IS NULL THEN j.reserved_ms ELSE 0 END
       OR j.finished_at IS NOT NULL AND e.charged_ms <> j.charged_ms
    LIMIT :limit
""")

# Budgets of tenants and keys that, with the notes that the next look folds in, hold back something else than what the
# jobs need that have not ended.
WRONG_RESERVES = text("""
    WITH alive AS (SELECT tenant_id, api_key_id, reserved_ms FROM jobs WHERE state IN ('queued', 'running')),
    needed AS (
        SELECT tenant_id, api_key_id, count(*) AS jobs, sum(reserved_ms) AS reserved_ms FROM (
            SELECT tenant_id, NULL AS api_key_id, reserved_ms FROM alive
            UNION ALL SELECT * FROM alive WHERE api_key_id IS NOT NULL) a
        GROUP BY tenant_id, api_key_id),
    noted AS (
        SELECT tenant_id, api_key_id, sum(jobs) AS jobs, sum(reserved_ms) AS reserved_ms FROM (
            SELECT tenant_id, NULL AS api_key_id, jobs, reserved_ms FROM budget_notes
            UNION ALL
            SELECT tenant_id, api_key_id, jobs, reserved_ms FROM budget_notes WHERE api_key_id IS NOT NULL) n
        GROUP BY tenant_id, api_key_id)
    SELECT coalesce(b.api_key_id, b.tenant_id)
    FROM budgets b
    LEFT JOIN needed j ON j.tenant_id = b.tenant_id AND j.api_key_id IS NOT DISTINCT FROM b.api_key_id
    LEFT JOIN noted n ON n.tenant_id = b.tenant_id AND n.api_key_id IS NOT DISTINCT FROM b.api_key_id
    WHERE b.jobs + coalesce(n.jobs, 0) <> coalesce(j.jobs, 0)
       OR b.reserved_ms + coalesce(n.reserved_ms, 0) <> coalesce(j.reserved_ms, 0)
    LIMIT :limit
""")

# --- attempts ---------------------------------------------------------------------------------------------------

_TRIED = """
    WITH tried AS (
        SELECT DISTINCT tenant_id, job_id FROM (
            SELECT tenant_id, job_id FROM job_attempts ORDER BY token DESC LIMIT :newest) newest)
"""

# A job succeeds once, by its newest claim; one that did not succeed has no attempt that did.
DOUBLED_RESULTS = text(
    _TRIED
    + """
    SELECT j.id FROM tried t JOIN jobs j ON j.id = t.job_id CROSS JOIN LATERAL (
        SELECT count(*) FILTER (WHERE outcome = 'succeeded') AS wins, max(token) AS newest,
            max(token) FILTER (WHERE outcome = 'succeeded') AS winner
        FROM job_attempts a WHERE a.tenant_id = j.tenant_id AND a.job_id = j.id) a
    WHERE a.wins <> (j.state = 'succeeded')::int OR a.winner <> a.newest
    LIMIT :limit
"""
)

# An attempt is open exactly while its token is the job's lease, and later tokens count further.
LOOSE_ATTEMPTS = text(
    _TRIED
    + """
    , numbered AS (
        SELECT a.token, a.job_id, a.attempt, a.outcome,
            lag(a.attempt) OVER (PARTITION BY a.job_id ORDER BY a.token) AS before
        FROM tried t JOIN job_attempts a ON a.tenant_id = t.tenant_id AND a.job_id = t.job_id)
    SELECT DISTINCT n.job_id FROM numbered n JOIN jobs j ON j.id = n.job_id
    WHERE n.attempt < n.before OR (n.outcome IS NULL) <> (j.state = 'running' AND j.lease_token = n.token)
    UNION
    SELECT j.id FROM jobs j
    WHERE j.state = 'running' AND NOT EXISTS (SELECT 1 FROM job_attempts a WHERE a.token = j.lease_token)
    LIMIT :limit
"""
)

# Attempts beyond those allowed; what was given back unharmed does not count.
EXCESS_ATTEMPTS = text(
    _TRIED
    + """
    SELECT j.id FROM tried t JOIN jobs j ON j.id = t.job_id
    JOIN job_attempts a ON a.tenant_id = j.tenant_id AND a.job_id = j.id AND a.outcome IS DISTINCT FROM 'returned'
    GROUP BY j.id HAVING count(*) > j.max_attempts OR count(*) <> j.attempt
    LIMIT :limit
"""
)

# What a job shows lies under the token of the attempt that succeeded; what did not succeed shows nothing.
MISPLACED_FILES = text(
    _TRIED
    + """
    SELECT f.id FROM tried t JOIN files f ON f.tenant_id = t.tenant_id AND f.job_id = t.job_id
    WHERE f.purpose <> 'preview' AND NOT EXISTS (
        SELECT 1 FROM job_attempts a
        WHERE a.tenant_id = f.tenant_id AND a.job_id = f.job_id AND a.outcome = 'succeeded'
          AND f.key LIKE 'jobs/' || f.job_id || '/' || a.token || '/%')
    LIMIT :limit
"""
)

# --- what customers were told -----------------------------------------------------------------------------------

# The end of a job is told once, last, and truly. A day back: events are kept longer than that.
UNTOLD_ENDS = text("""
    WITH recent AS (SELECT * FROM jobs ORDER BY id DESC LIMIT :newest)
    SELECT j.id FROM recent j CROSS JOIN LATERAL (
        SELECT count(*) FILTER (WHERE split_part(e.type, '.', 2) IN ('succeeded', 'failed', 'canceled', 'expired'))
                AS ends,
            coalesce(bool_or(e.type = j.kind || '.' || j.state AND e.sequence = j.event_sequence), false) AS told
        FROM events e WHERE e.job_id = j.id) e
    WHERE e.ends <> (j.finished_at IS NOT NULL)::int AND coalesce(j.finished_at > lockstep_now() - :told, true)
       OR j.finished_at > lockstep_now() - :told AND NOT e.told
    LIMIT :limit
""")

# A job's event without a delivery to an endpoint that got both earlier and later ones of its type (to one that stands
# for a host: if the job names that), and deliveries that count as delivered though no receiver said so.
MISSED_DELIVERIES = text("""
    WITH recent AS (
        SELECT id, tenant_id, job_id, type, created_at FROM events ORDER BY created_at DESC LIMIT :newest),
    told AS (
        SELECT d.endpoint_id, e.type, min(e.created_at) AS since, max(e.created_at) AS until
        FROM recent e JOIN webhook_deliveries d ON d.event_id = e.id GROUP BY 1, 2)
    SELECT e.id FROM recent e JOIN told t ON t.type = e.type AND e.created_at > t.since AND e.created_at < t.until
    JOIN webhook_endpoints w ON w.id = t.endpoint_id AND w.tenant_id = e.tenant_id AND w.deleted_at IS NULL
        AND e.created_at > w.listening_since + interval '1 minute' AND e.job_id IS NOT NULL
    WHERE NOT EXISTS (SELECT 1 FROM webhook_deliveries d WHERE d.event_id = e.id AND d.endpoint_id = w.id)
      AND (NOT w.on_request OR EXISTS (
        SELECT 1 FROM jobs j WHERE j.id = e.job_id AND j.webhook ->> 'endpoint_id' = w.id
          AND (j.webhook -> 'event_types' = '[]' OR jsonb_exists(j.webhook -> 'event_types', e.type))))
    UNION
    SELECT d.id FROM recent e JOIN webhook_deliveries d ON d.event_id = e.id
    WHERE d.state = 'delivered' AND NOT EXISTS (
        SELECT 1 FROM webhook_attempts a WHERE a.delivery_id = d.id AND a.status BETWEEN 200 AND 299)
    LIMIT :limit
""")

# Answers kept for repeated requests that promise a job which is not there.
BROKEN_PROMISES = text("""
    WITH recent AS (
        SELECT tenant_id, body FROM idempotency_keys WHERE status = 201 ORDER BY created_at DESC LIMIT :newest)
    SELECT r.body ->> 'id' FROM recent r
    WHERE starts_with(r.body ->> 'id', 'job_')
      AND NOT EXISTS (SELECT 1 FROM jobs j WHERE j.id = r.body ->> 'id' AND j.tenant_id = r.tenant_id)
    LIMIT :limit
""")

# --- what a look found ------------------------------------------------------------------------------------------

KEEP_LOOK = text("""
    INSERT INTO invariant_looks (name, broken, looked_at)
    SELECT name, broken, lockstep_now() FROM unnest(:names, :broken) AS l(name, broken)
    ON CONFLICT (name) DO UPDATE SET broken = excluded.broken, looked_at = excluded.looked_at
""").bindparams(bindparam("names", type_=ARRAY(Text())), bindparam("broken", type_=ARRAY(BigInteger())))

# --- stored files -----------------------------------------------------------------------------------------------


def random_files(count: int) -> Select[str, str, str]:
    """Ids, keys and hashes of files, drawn at random."""
    return select(File.id, File.key, File.sha256).order_by(func.random()).limit(count)
