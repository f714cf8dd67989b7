"""What operators are to be told, worked out anew: from the jobs, attempts and deliveries themselves.

None of it reads what the deployment keeps for looking things up (standings, notes, tallies), but for when a job came
into the queue, which its row there alone knows, and how far the learning has come.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sqlalchemy import Connection, text

_WAITS = """
    j.state = 'queued' AND j.not_before IS NULL AND j.pause_requested_at IS NULL AND NOT j.blocked
    AND j.key_place IS DISTINCT FROM 'waiting'
"""

POOL = f"""
    WITH own AS (SELECT * FROM jobs j WHERE j.pool = :pool),
    open AS (
        SELECT c.tenant_id FROM tenant_pools c LEFT JOIN own j ON j.tenant_id = c.tenant_id AND j.state = 'running'
        WHERE c.pool = :pool AND c.paused_at IS NULL
        GROUP BY c.tenant_id, c.max_running HAVING count(j.id) < c.max_running),
    first AS (
        SELECT DISTINCT ON (r.tenant_id) r.ready_at FROM ready r JOIN open USING (tenant_id)
        WHERE r.pool = :pool ORDER BY r.tenant_id, r.sort_key, r.job_id)
    SELECT (SELECT count(*) FROM own j WHERE {_WAITS}) AS queued,
        (SELECT count(*) FROM own WHERE state = 'running') AS running,
        (SELECT extract(epoch FROM lockstep_now() - min(ready_at)) FROM first) AS oldest_wait,
        (SELECT count(*) FROM workers w WHERE w.pool = :pool AND w.state <> 'stopped'
            AND lockstep_now() - w.heartbeat_at < interval '30 seconds') AS workers,
        (SELECT paused_at IS NOT NULL FROM pools WHERE name = :pool) AS paused
"""

TENANTS = f"""
    SELECT c.tenant_id, t.name, c.weight, c.max_running, c.paused_at IS NOT NULL AS paused,
        count(j.id) FILTER (WHERE {_WAITS}) AS queued, count(j.id) FILTER (WHERE j.state = 'running') AS running
    FROM tenant_pools c JOIN tenants t ON t.id = c.tenant_id
    LEFT JOIN jobs j ON j.pool = c.pool AND j.tenant_id = c.tenant_id
    WHERE c.pool = :pool GROUP BY c.tenant_id, t.name, c.weight, c.max_running, c.paused_at ORDER BY c.tenant_id
"""

LANES = f"""
    SELECT j.lane, count(*) FILTER (WHERE {_WAITS}) AS queued, count(*) FILTER (WHERE j.state = 'running') AS running,
        extract(epoch FROM lockstep_now() - min(r.ready_at)) AS oldest_wait
    FROM jobs j LEFT JOIN ready r ON r.job_id = j.id
    WHERE j.pool = :pool AND (j.state = 'running' OR ({_WAITS})) GROUP BY j.lane
"""

# The attempts that ended last: of an hour, and 2,000 at most.
_LAST = """
    (SELECT *, row_number() OVER (ORDER BY ended_at DESC, token DESC) AS place FROM job_attempts
     WHERE lockstep_now() - ended_at < interval '1 hour') a
"""

RECENT = f"""
    SELECT j.priority, count(*) AS ended, sum((a.outcome = 'succeeded')::int) AS succeeded,
        percentile_cont(0.5) WITHIN GROUP (ORDER BY extract(epoch FROM a.started_at - j.created_at)) AS wait_p50,
        percentile_cont(0.95) WITHIN GROUP (ORDER BY extract(epoch FROM a.started_at - j.created_at)) AS wait_p95
    FROM jobs j JOIN {_LAST} ON a.job_id = j.id AND a.tenant_id = j.tenant_id
    WHERE j.pool = :pool AND a.place <= 2000 GROUP BY j.priority
"""

FAILURES = f"""
    SELECT a.error ->> 'code' AS code, count(*) AS failures
    FROM jobs j JOIN {_LAST} ON a.job_id = j.id
    WHERE j.pool = :pool AND a.place <= 2000 AND a.error IS NOT NULL GROUP BY 1
"""

WORKERS = """
    SELECT id, host, pid, state, drained_at IS NOT NULL AS drained, drain_reason, heartbeat_at, warm_models,
        device_kind, utilization, memory_used_bytes, memory_total_bytes, temperature_c, power_w
    FROM workers WHERE state <> 'stopped' ORDER BY id
"""

WORKER_COUNTS = """
    SELECT CASE WHEN drained_at IS NOT NULL THEN 'drained' ELSE state END AS state, count(*) AS workers
    FROM workers WHERE pool = :pool AND state <> 'stopped'
      AND lockstep_now() - heartbeat_at < interval '30 seconds' GROUP BY 1
"""

DEVICES = """
    SELECT device_kind, sum(utilization) / count(utilization) AS utilization,
        sum(memory_used_bytes) AS memory_used_bytes, sum(memory_total_bytes) AS memory_bytes,
        max(temperature_c) AS temperature_celsius, sum(power_w) AS power_watts
    FROM workers WHERE pool = :pool AND state <> 'stopped' AND lockstep_now() - heartbeat_at < interval '30 seconds'
      AND device_kind IS NOT NULL GROUP BY 1
"""

# The attempts that were counted: all up to the one that was learned from last.
_COUNTED = """
    FROM job_attempts a JOIN jobs j ON j.id = a.job_id, marks m
    WHERE m.name = 'learning' AND (a.ended_at, a.token) <= (m.at, m.token) AND j.pool = :pool
"""

ATTEMPTS = f"""
    SELECT j.kind, a.outcome, count(*) AS attempts, sum(extract(epoch FROM a.ended_at - a.started_at)) AS seconds,
        sum(a.gpu_seconds) AS gpu_seconds
    {_COUNTED} GROUP BY 1, 2
"""

ESTIMATED = f"""
    SELECT count(*) FROM (
        SELECT DISTINCT ON (j.id) j.start_estimate_ms IS NOT NULL AS estimated {_COUNTED} AND a.attempt = 1
          AND a.token = (SELECT min(token) FROM job_attempts f WHERE f.job_id = j.id)) s
    WHERE estimated
"""

# Of a job, its first attempt; how long it waited.
WAITS = f"""
    SELECT DISTINCT ON (j.id) j.priority, extract(epoch FROM a.started_at - j.created_at) AS seconds
    {_COUNTED} AND a.attempt = 1 AND a.token = (SELECT min(token) FROM job_attempts f WHERE f.job_id = j.id)
"""

# A batch is what one worker claimed at one time; it is counted with its first attempt.
BATCHES = f"""
    SELECT j.kind, (SELECT count(*) FROM job_attempts b
        WHERE b.worker_id = a.worker_id AND b.started_at = a.started_at) AS size
    {_COUNTED} AND NOT EXISTS (
        SELECT 1 FROM job_attempts b
        WHERE b.worker_id = a.worker_id AND b.started_at = a.started_at AND b.token < a.token)
"""

DELIVERIES = """
    WITH owed AS (SELECT lockstep_now() - min(next_attempt_at) AS age FROM webhook_deliveries WHERE state = 'pending')
    SELECT count(*) FILTER (WHERE state = 'pending') AS pending, count(*) FILTER (WHERE state = 'held') AS held,
        (SELECT coalesce(greatest(extract(epoch FROM age), 0), 0) FROM owed) AS lag
    FROM webhook_deliveries
"""

JOBS = """
    SELECT id, tenant_id, state, attempt, gpu_seconds FROM jobs ORDER BY id DESC LIMIT 100
"""


def rows(connection: Connection, sql: str, **values: Any) -> list[Mapping[str, Any]]:
    """What a query finds at the moment that the connection sees."""
    return [dict(row._mapping) for row in connection.execute(text(sql), values)]
