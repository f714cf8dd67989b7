"""SQL of the operators' reads. Every one looks at a bounded number of rows, found by an index."""

from __future__ import annotations

from sqlalchemy import Select, Text, bindparam, select, text

from core.db.paging import Place, nearest_first
from core.jobs.models import Job, Worker
from core.operations.models import AuditEntry

MOST_COUNTED = 10_000
"""Counts stop here: what is more is told as so many and more."""

POOLS = text("""
    SELECT p.name, p.paused_at,
        (SELECT count(*) FROM (SELECT 1 FROM ready r WHERE r.pool = p.name LIMIT :most) r) AS queued,
        (SELECT count(*) FROM (
            SELECT 1 FROM jobs j WHERE j.state = 'running' AND j.lease_until IS NOT NULL AND j.pool = p.name LIMIT :most
        ) r) AS running,
        (SELECT max(extract(epoch FROM lockstep_now() - h.ready_at)) FROM (
            SELECT s.tenant_id FROM tenant_sched s
            WHERE s.pool = p.name AND s.active AND NOT s.paused AND s.running < s.max_running
            ORDER BY s.vtime LIMIT 1000) t
         CROSS JOIN LATERAL (
            SELECT r.ready_at FROM ready r WHERE r.pool = p.name AND r.tenant_id = t.tenant_id
            ORDER BY r.sort_key, r.job_id LIMIT 1) h) AS oldest_wait,
        (SELECT count(*) FROM workers w WHERE w.pool = p.name AND w.state <> 'stopped'
            AND w.heartbeat_at > lockstep_now() - interval '30 seconds') AS workers
    FROM pools p ORDER BY p.name LIMIT 200
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
    SELECT s.tenant_id, t.name, c.weight, c.max_running, c.paused_at, s.running, s.active, s.vtime,
        (SELECT count(*) FROM (
            SELECT 1 FROM ready r WHERE r.pool = s.pool AND r.tenant_id = s.tenant_id LIMIT :most) r) AS queued
    FROM tenant_sched s
    JOIN tenant_pools c ON c.pool = s.pool AND c.tenant_id = s.tenant_id
    JOIN tenants t ON t.id = s.tenant_id
    WHERE s.pool = :pool AND (:after = '' OR s.tenant_id > :after)
    ORDER BY s.tenant_id LIMIT :limit
""").bindparams(bindparam("after", type_=Text()))

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
    """Jobs of all tenants or of one, nearest to a place first."""
    query = select(Job)
    for column, wanted in ((Job.tenant_id, tenant_id), (Job.pool, pool), (Job.state, state)):
        if wanted is not None:
            query = query.where(column == wanted)
    return nearest_first(query, Job.created_at, Job.id, after=after, before=before, limit=limit)


def audit_page(*, tenant_id: str | None, after: Place | None, before: Place | None, limit: int) -> Select[AuditEntry]:
    """Acts, the latest first."""
    query = select(AuditEntry)
    if tenant_id is not None:
        query = query.where(AuditEntry.tenant_id == tenant_id)
    return nearest_first(query, AuditEntry.created_at, AuditEntry.id, after=after, before=before, limit=limit)


def audit_by_id(entry_id: str) -> Select[AuditEntry]:
    """One act."""
    return select(AuditEntry).where(AuditEntry.id == entry_id)


WORKER_COUNTS = text("""
    SELECT pool, CASE WHEN drained_at IS NULL THEN state ELSE 'drained' END AS state, count(*) AS workers FROM workers
    WHERE state <> 'stopped' AND heartbeat_at > lockstep_now() - interval '30 seconds'
    GROUP BY 1, 2 ORDER BY 1, 2
""")

TALLIES = text("SELECT pool, kind, outcome, attempts, seconds, gpu_seconds FROM attempt_tallies ORDER BY 1, 2, 3")

CALIBRATIONS = text("SELECT pool, samples, within_median, within_high FROM start_calibrations ORDER BY pool")

INVARIANTS = text("SELECT name, broken FROM invariant_looks ORDER BY name")

DELIVERIES = text("""
    SELECT (SELECT count(*) FROM (
            SELECT 1 FROM webhook_deliveries WHERE state = 'pending' LIMIT :most) d) AS pending,
        coalesce((SELECT extract(epoch FROM lockstep_now() - min(d.next_attempt_at)) FROM (
            SELECT next_attempt_at FROM webhook_deliveries
            WHERE state = 'pending' AND next_attempt_at < lockstep_now() LIMIT :most) d), 0) AS lag
""")
