"""SQL of the operators' reads. Every one looks at a bounded number of rows, found by an index."""

from __future__ import annotations

from sqlalchemy import Select, Text, bindparam, select, text

from core.db.paging import Place, nearest_first
from core.jobs.models import Job, Worker
from core.operations.models import AuditEntry

MOST_COUNTED = 10_000
"""Counts stop here: what is more is told as so many and more."""

# The tenants that wait are found one by one in the queue itself: who has just come, or come below a cap again, is known
# to the standings from the next claim on, and without workers there is none.
POOLS = text("""
    SELECT p.name, p.paused_at,
        (SELECT count(*) FROM (SELECT 1 FROM ready r WHERE r.pool = p.name LIMIT :most) r) AS queued,
        (SELECT count(*) FROM (
            SELECT 1 FROM jobs j WHERE j.state = 'running' AND j.lease_until IS NOT NULL AND j.pool = p.name LIMIT :most
        ) r) AS running,
        (WITH RECURSIVE waiting (tenant_id, number) AS (
            (SELECT r.tenant_id, 1 FROM ready r WHERE r.pool = p.name ORDER BY r.tenant_id LIMIT 1)
            UNION ALL
            SELECT (SELECT r.tenant_id FROM ready r WHERE r.pool = p.name AND r.tenant_id > w.tenant_id
                ORDER BY r.tenant_id LIMIT 1), w.number + 1
            FROM waiting w WHERE w.tenant_id IS NOT NULL AND w.number < 1000)
         SELECT max(extract(epoch FROM lockstep_now() - h.ready_at))
         FROM waiting w
         JOIN tenant_pools c ON c.pool = p.name AND c.tenant_id = w.tenant_id AND c.paused_at IS NULL
         JOIN tenant_sched s ON s.pool = p.name AND s.tenant_id = w.tenant_id AND c.max_running > s.running - coalesce((
            SELECT sum(n.released) FROM sched_notes n WHERE n.pool = p.name AND n.tenant_id = w.tenant_id), 0)
         CROSS JOIN LATERAL (
            SELECT r.ready_at FROM ready r WHERE r.pool = p.name AND r.tenant_id = w.tenant_id
            ORDER BY r.sort_key, r.job_id LIMIT 1) h) AS oldest_wait,
        (SELECT count(*) FROM workers w WHERE w.pool = p.name AND w.state <> 'stopped'
            AND w.heartbeat_at > lockstep_now() - interval '30 seconds') AS workers
    FROM pools p ORDER BY p.name LIMIT 200
""")

# What waits and runs in each lane of a pool, the longest first.
LANES = text("""
    WITH queued AS (
        SELECT lane, count(*) AS jobs, max(extract(epoch FROM lockstep_now() - ready_at)) AS oldest_wait
        FROM (SELECT lane, ready_at FROM ready WHERE pool = :pool LIMIT :most) r GROUP BY lane),
    running AS (
        SELECT lane, count(*) AS jobs FROM (
            SELECT lane FROM jobs WHERE state = 'running' AND lease_until IS NOT NULL AND pool = :pool LIMIT :most) r
        GROUP BY lane)
    SELECT lane, coalesce(q.jobs, 0) AS queued, coalesce(r.jobs, 0) AS running, q.oldest_wait
    FROM queued q FULL JOIN running r USING (lane)
    ORDER BY 2 DESC, 3 DESC, lane LIMIT 50
""")

# Of the attempts that ended last: waits by priority, and how they ended.
RECENT = text("""
    WITH recent AS MATERIALIZED (
        SELECT a.job_id, a.outcome, a.error, a.started_at, a.ended_at FROM job_attempts a
        WHERE a.ended_at > lockstep_now() - :within ORDER BY a.ended_at DESC, a.token DESC LIMIT :most)
    SELECT j.priority, count(*) AS ended,
        count(*) FILTER (WHERE r.outcome = 'succeeded') AS succeeded,
        percentile_cont(0.5) WITHIN GROUP (ORDER BY extract(epoch FROM r.started_at - j.created_at)) AS wait_p50,
        percentile_cont(0.95) WITHIN GROUP (ORDER BY extract(epoch FROM r.started_at - j.created_at)) AS wait_p95
    FROM recent r JOIN jobs j ON j.id = r.job_id WHERE j.pool = :pool
    GROUP BY j.priority ORDER BY j.priority DESC
""")

FAILURES = text("""
    WITH recent AS MATERIALIZED (
        SELECT a.job_id, a.error FROM job_attempts a
        WHERE a.ended_at > lockstep_now() - :within ORDER BY a.ended_at DESC, a.token DESC LIMIT :most)
    SELECT r.error ->> 'code' AS code, count(*) AS failures
    FROM recent r JOIN jobs j ON j.id = r.job_id WHERE j.pool = :pool AND r.error IS NOT NULL
    GROUP BY 1 ORDER BY 2 DESC, 1 LIMIT 50
""")

# Those that are awake first, in the order of their turn; then the others.
TENANTS = text("""
    SELECT s.tenant_id, t.name, c.weight, c.max_running, c.paused_at, s.active, s.vtime,
        s.running - coalesce((
            SELECT sum(n.released) FROM sched_notes n
            WHERE n.pool = s.pool AND n.tenant_id = s.tenant_id), 0) AS running,
        (SELECT count(*) FROM (
            SELECT 1 FROM ready r WHERE r.pool = s.pool AND r.tenant_id = s.tenant_id LIMIT :most) r) AS queued
    FROM tenant_sched s
    JOIN tenant_pools c ON c.pool = s.pool AND c.tenant_id = s.tenant_id
    JOIN tenants t ON t.id = s.tenant_id
    WHERE s.pool = :pool AND (:after = '' OR s.tenant_id > :after)
    ORDER BY s.tenant_id LIMIT :limit
""").bindparams(bindparam("after", type_=Text()))

TENANT_OF_POOL = text("""
    SELECT c.tenant_id, t.name, c.weight, c.max_running, c.paused_at FROM tenant_pools c
    JOIN tenants t ON t.id = c.tenant_id WHERE c.pool = :pool AND c.tenant_id = :tenant_id
""")

MODELS = text("SELECT id, name, kind, tenant_id, paused_at FROM models ORDER BY name, id LIMIT 200")

TENANT = text("""
    SELECT id, name, is_operator, safety, created_at FROM tenants WHERE id = :tenant_id
""")

TENANTS_PAGE = text("""
    SELECT id, name, is_operator, created_at FROM tenants WHERE id > :after ORDER BY id LIMIT :limit
""")

POOLS_OF_TENANT = text("""
    SELECT s.pool, c.weight, c.max_running, c.paused_at,
        s.running - coalesce((
            SELECT sum(n.released) FROM sched_notes n
            WHERE n.pool = s.pool AND n.tenant_id = s.tenant_id), 0) AS running,
        (SELECT count(*) FROM (
            SELECT 1 FROM ready r WHERE r.pool = s.pool AND r.tenant_id = s.tenant_id LIMIT :most) r) AS queued
    FROM pools p JOIN tenant_sched s ON s.pool = p.name AND s.tenant_id = :tenant_id
    JOIN tenant_pools c ON c.pool = s.pool AND c.tenant_id = s.tenant_id
    ORDER BY s.pool LIMIT 200
""")

# The latest first, from the one after `:after` on.
LEDGER = text("""
    SELECT id, job_id, api_key_id, kind, job_kind, reserved_ms, charged_ms, created_at FROM ledger_entries
    WHERE tenant_id = :tenant_id AND (CAST(:after AS bigint) IS NULL OR (created_at, id) < (
        SELECT created_at, id FROM ledger_entries WHERE id = CAST(:after AS bigint)))
    ORDER BY created_at DESC, id DESC LIMIT :limit
""")

_UNSENT = ",\n        ".join(
    f"(SELECT count(*) FROM (SELECT 1 FROM webhook_deliveries d"
    f" WHERE d.endpoint_id = w.id AND d.state = '{state}' LIMIT :most) d) AS {state}"
    for state in ("pending", "held", "failed")
)
_ENDPOINTS = f"""
    SELECT w.id, w.tenant_id, w.name, w.url, w.disabled_at, w.disabled_reason, w.failing_since,
        {_UNSENT}
    FROM webhook_endpoints w WHERE w.deleted_at IS NULL AND w.id > :after AND
"""

ENDPOINTS_IN_TROUBLE = text(
    f"{_ENDPOINTS} (w.disabled_at IS NOT NULL OR w.failing_since IS NOT NULL) ORDER BY w.id LIMIT :limit"
)
ENDPOINTS_OF_TENANT = text(f"{_ENDPOINTS} w.tenant_id = :tenant_id ORDER BY w.id LIMIT :limit")

POOL_NAMED = text("SELECT 1 FROM pools WHERE name = :pool")

TENANT_POOL = text("""
    SELECT weight, max_running, paused_at FROM tenant_pools WHERE pool = :pool AND tenant_id = :tenant_id FOR UPDATE
""")

POOL = text("SELECT paused_at FROM pools WHERE name = :pool FOR UPDATE")

MODEL = text("SELECT name, tenant_id, paused_at FROM models WHERE id = :model_id FOR UPDATE")

API_KEY = text("SELECT tenant_id, max_running FROM api_keys WHERE id = :api_key_id FOR UPDATE")

JOB = text("SELECT tenant_id, priority, state FROM jobs WHERE id = :job_id")

DRAIN = text("""
    UPDATE workers SET drained_at = CASE WHEN :drained THEN coalesce(drained_at, lockstep_now()) END,
        quarantined_at = CASE WHEN :quarantined THEN coalesce(quarantined_at, lockstep_now()) END,
        drain_reason = CASE WHEN :drained THEN CAST(:reason AS text) END
    WHERE id = :worker_id RETURNING pool
""").bindparams(bindparam("reason", type_=Text()))


def workers(pool: str | None, *, after: str, limit: int) -> Select[Worker]:
    """Workers that have not stopped, in the order of their start: their ids sort by it."""
    query = select(Worker).where(Worker.state != "stopped", Worker.id > after).order_by(Worker.id).limit(limit)
    return query if pool is None else query.where(Worker.pool == pool)


def jobs_page(
    *,
    tenant_id: str | None,
    pool: str | None,
    state: str | None,
    after: Place | None,
    before: Place | None,
    limit: int,
) -> Select[Job]:
    """Jobs of all tenants or of one, nearest to a place first.

    Ids sort by time, so all tenants' are read off the primary key; those that did not succeed have an index of theirs,
    which a plan can only use that knows the state.
    """
    query = select(Job).limit(limit)
    for column, wanted in ((Job.tenant_id, tenant_id), (Job.pool, pool)):
        if wanted is not None:
            query = query.where(column == wanted)
    if state is not None:
        query = query.where(Job.state == bindparam("state", state, type_=Text(), literal_execute=True))
    if tenant_id is not None:
        return nearest_first(query, Job.created_at, Job.id, after=after, before=before, limit=limit)
    if before is not None:
        return query.where(Job.id > before[1]).order_by(Job.id)
    return (query if after is None else query.where(Job.id < after[1])).order_by(Job.id.desc())


def audit_page(*, tenant_id: str | None, after: Place | None, before: Place | None, limit: int) -> Select[AuditEntry]:
    """Acts, the latest first."""
    query = select(AuditEntry)
    if tenant_id is not None:
        query = query.where(AuditEntry.tenant_id == tenant_id)
    return nearest_first(query, AuditEntry.created_at, AuditEntry.id, after=after, before=before, limit=limit)


def audit_by_id(entry_id: str) -> Select[AuditEntry]:
    """One act."""
    return select(AuditEntry).where(AuditEntry.id == entry_id)


LOOK_AS = text("SELECT set_config('app.tenant_id', :tenant_id, true)")

EVENTS_OF_JOB = text("""
    SELECT sequence, type, created_at FROM events WHERE job_id = :job_id ORDER BY sequence DESC LIMIT :limit
""")

DELIVERIES_OF_JOB = text("""
    SELECT d.id, d.endpoint_id, e.type, w.url, d.state, d.attempt, d.next_attempt_at,
        (SELECT a.status FROM webhook_attempts a WHERE a.delivery_id = d.id ORDER BY a.attempt DESC LIMIT 1) AS status
    FROM events e JOIN webhook_deliveries d ON d.event_id = e.id
    JOIN webhook_endpoints w ON w.id = d.endpoint_id
    WHERE e.job_id = :job_id ORDER BY e.sequence DESC, d.id LIMIT :limit
""")

WORKER_COUNTS = text("""
    SELECT pool, CASE WHEN quarantined_at IS NOT NULL THEN 'quarantined' WHEN drained_at IS NOT NULL THEN 'drained'
        ELSE state END AS state, count(*) AS workers FROM workers
    WHERE state <> 'stopped' AND heartbeat_at > lockstep_now() - interval '30 seconds'
    GROUP BY 1, 2 ORDER BY 1, 2
""")

# By pool and sort of device, so that their number does not grow with that of workers.
VITALS = text("""
    SELECT pool, device_kind, avg(utilization) AS utilization, sum(memory_used_bytes) AS memory_used,
        sum(memory_total_bytes) AS memory_total, max(temperature_c) AS temperature, sum(power_w) AS power
    FROM workers
    WHERE state <> 'stopped' AND heartbeat_at > lockstep_now() - interval '30 seconds' AND device_kind IS NOT NULL
    GROUP BY pool, device_kind ORDER BY pool, device_kind
""")

TALLIES = text("SELECT pool, kind, outcome, attempts, seconds, gpu_seconds FROM attempt_tallies ORDER BY 1, 2, 3")

WAIT_TALLIES = text("SELECT pool, priority, bound, starts, seconds FROM wait_tallies ORDER BY 1, 2, 3")

BATCH_TALLIES = text("SELECT pool, kind, warm, size, batches FROM batch_tallies ORDER BY 1, 2, 3, 4")

CALIBRATIONS = text("SELECT pool, samples, within_median, within_high FROM start_calibrations ORDER BY pool")

INVARIANTS = text("SELECT name, broken FROM invariant_looks ORDER BY name")

DELIVERIES = text("""
    SELECT (SELECT count(*) FROM (
            SELECT 1 FROM webhook_deliveries WHERE state = 'pending' LIMIT :most) d) AS pending,
        (SELECT count(*) FROM (
            SELECT 1 FROM webhook_deliveries WHERE state = 'held' LIMIT :most) d) AS held,
        coalesce((SELECT extract(epoch FROM lockstep_now() - min(d.next_attempt_at)) FROM (
            SELECT next_attempt_at FROM webhook_deliveries
            WHERE state = 'pending' AND next_attempt_at < lockstep_now() LIMIT :most) d), 0) AS lag
""")
