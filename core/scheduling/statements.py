"""SQL of the fair share: standings of tenants, queue rows, and what makes work runnable.

Whoever does not hold the pool's lock writes no standing: it leaves a note, which the next claim folds in. Rules kept
here: a job's row is locked before its queue row, and a standing follows its configuration through a note as well.
"""

from __future__ import annotations

from sqlalchemy import BigInteger, Text, bindparam, text
from sqlalchemy.dialects.postgresql import ARRAY

_IDS = bindparam("ids", type_=ARRAY(Text()))
_TENANTS = bindparam("tenant_ids", type_=ARRAY(Text()))

# --- enqueue ---------------------------------------------------------------------------------------------------

# A tenant's first job in a pool makes its configuration and its standing in one go. Says the time, the key's cap and
# what was learned of such jobs' cost.
JOIN_POOL = text("""
    WITH joined AS (
        INSERT INTO tenant_pools (pool, tenant_id, max_running) VALUES (:pool, :tenant_id, :max_running)
        ON CONFLICT DO NOTHING RETURNING pool, tenant_id, weight, max_running, paused_at),
    standing AS (
        INSERT INTO tenant_sched (pool, tenant_id, weight, max_running, paused)
        SELECT pool, tenant_id, weight, max_running, paused_at IS NOT NULL FROM (
            SELECT * FROM joined
            UNION ALL
            SELECT pool, tenant_id, weight, max_running, paused_at FROM tenant_pools
            WHERE pool = :pool AND tenant_id = :tenant_id) c
        ON CONFLICT DO NOTHING)
    SELECT lockstep_now() AS now, (SELECT max_running FROM api_keys WHERE id = :api_key_id) AS key_cap, (
        SELECT e.log_mean FROM unnest(:cost_keys) WITH ORDINALITY AS k(key, place)
        JOIN cost_estimates e USING (key) WHERE e.samples >= :enough ORDER BY k.place LIMIT 1) AS log_mean
""").bindparams(bindparam("api_key_id", type_=Text()), bindparam("cost_keys", type_=ARRAY(Text())))

# The foreign key holds the tenant's row FOR KEY SHARE until commit, which conflicts with the FOR UPDATE of a claim that
# lets a tenant sleep or looks no longer before its first job; WAKE, a later statement with a newer snapshot, then sees
# what that claim did.
ENQUEUE = text("""
    INSERT INTO ready (pool, tenant_id, sort_key, job_id, lane, model_id, cost_ms)
    SELECT pool, tenant_id, sort_key, id, lane, model_id, cost_ms FROM jobs WHERE id = ANY (:ids)
""").bindparams(_IDS)

# A worker is idle only where no tenant is awake, so what it must hear of at once passes here; a notification for every
# job would make all commits queue up for one lock.
WAKE = text("""
    WITH note AS (
        INSERT INTO sched_notes (pool, tenant_id, wake, least_key)
        SELECT s.pool, s.tenant_id, true, min(j.sort_key)
        FROM jobs j JOIN tenant_sched s ON s.pool = j.pool AND s.tenant_id = j.tenant_id
        WHERE j.id = ANY (:ids) AND (NOT s.active OR j.sort_key < s.head_key)
        GROUP BY s.pool, s.tenant_id
        RETURNING pool)
    SELECT pg_notify('lockstep_wake', pool) FROM (SELECT DISTINCT pool FROM note) n
""").bindparams(_IDS)

PROMOTE = text("""
    WITH due AS (
        SELECT id FROM jobs
        WHERE not_before <= lockstep_now() AND state = 'queued' AND pause_requested_at IS NULL AND NOT blocked
          AND key_place IS DISTINCT FROM 'waiting'
        ORDER BY not_before LIMIT :limit FOR UPDATE SKIP LOCKED)
    UPDATE jobs j SET not_before = NULL FROM due WHERE j.id = due.id
    RETURNING j.id
""")

# Jobs of keys with a cap wait apart from the queue until one of the key's places is free, so that they hold up nobody.
# The keys among them are found one by one: a look at every waiting job would grow with the backlog.
ADMIT = text("""
    WITH RECURSIVE waiting AS (
        (SELECT api_key_id FROM jobs WHERE key_place = 'waiting' AND state = 'queued' ORDER BY api_key_id LIMIT 1)
        UNION ALL
        SELECT (SELECT j.api_key_id FROM jobs j
                WHERE j.key_place = 'waiting' AND j.state = 'queued' AND j.api_key_id > w.api_key_id
                ORDER BY j.api_key_id LIMIT 1)
        FROM waiting w WHERE w.api_key_id IS NOT NULL),
    room AS MATERIALIZED (
        SELECT k.id, least(:limit, coalesce(k.max_running, :limit) - (
            SELECT count(*) FROM jobs h
            WHERE h.api_key_id = k.id AND h.key_place = 'held' AND h.state IN ('queued', 'running'))) AS places
        FROM waiting w JOIN api_keys k ON k.id = w.api_key_id),
    next AS MATERIALIZED (
        SELECT j.id FROM room r CROSS JOIN LATERAL (
            SELECT id FROM jobs
            WHERE api_key_id = r.id AND key_place = 'waiting' AND state = 'queued'
              AND pause_requested_at IS NULL AND NOT blocked
            ORDER BY sort_key, id LIMIT greatest(0, r.places) FOR UPDATE SKIP LOCKED) j)
    UPDATE jobs j SET key_place = 'held', not_before = coalesce(j.not_before, lockstep_now())
    FROM next WHERE j.id = next.id
    RETURNING j.id
""")

ADMIT_ALONE = text("SELECT pg_try_advisory_xact_lock(hashtext('lockstep'), hashtext('admit'))")

UNQUEUE = text("DELETE FROM ready WHERE job_id = ANY (:ids)").bindparams(_IDS)

# Those that do not wait any more. A job that was paused just now and is resumed already waits, in a row of its own.
DEQUEUE = text("""
    DELETE FROM ready r USING jobs j WHERE r.job_id = ANY (:ids) AND j.id = r.job_id AND j.state <> 'queued'
""").bindparams(_IDS)

# --- claim -----------------------------------------------------------------------------------------------------

# One claim at a time per pool: the selection reads and writes every tenant's standing.
LOCK_POOL = text("SELECT pg_advisory_xact_lock(hashtext('lockstep.pool'), hashtext(:pool))")

FOLD_NOTES = text("""
    WITH note AS (
        DELETE FROM sched_notes WHERE pool = :pool RETURNING tenant_id, wake, released, refund_ms, least_key),
    total AS (
        SELECT tenant_id, bool_or(wake) AS wake, sum(released) AS released, sum(refund_ms) AS refund_ms,
            min(least_key) AS least_key
        FROM note GROUP BY tenant_id)
    UPDATE tenant_sched s SET
        active = s.active OR t.wake,
        running = greatest(0, s.running - t.released),
        weight = c.weight, max_running = c.max_running, paused = c.paused_at IS NOT NULL,
        head_key = least(s.head_key, t.least_key),
        -- A refund never reaches behind the pool's own time, and nobody wakes, resumes or leaves its cap with credit.
        vtime = greatest(p.vtime, s.vtime - t.refund_ms * 100 / c.weight)
    FROM total t, pools p, tenant_pools c
    WHERE s.pool = :pool AND s.tenant_id = t.tenant_id AND p.name = :pool
      AND c.pool = s.pool AND c.tenant_id = s.tenant_id
""")

# Nobody who can be served stands behind the pool's own time: what lies there are dead entries of its index, which are
# not read. A paused pool has no time, and so no leader; for a drained worker there is none either.
LEADERS = text("""
    SELECT tenant_id, vtime, weight, max_running - running AS free, head_key
    FROM tenant_sched
    WHERE pool = :pool AND active AND NOT paused AND running < max_running
      AND vtime >= (SELECT vtime FROM pools WHERE name = :pool AND paused_at IS NULL)
      AND tenant_id <> ALL (:passed_over)
      AND NOT EXISTS (SELECT 1 FROM workers WHERE id = :worker_id AND drained_at IS NOT NULL)
    ORDER BY vtime, tenant_id LIMIT :limit
""").bindparams(bindparam("passed_over", type_=ARRAY(Text())))

_RUNNABLE = "NOT EXISTS (SELECT 1 FROM models m WHERE m.id = r.model_id AND m.paused_at IS NOT NULL)"

HEADS = text(f"""
    SELECT r.job_id, r.tenant_id, r.lane, r.model_id, r.cost_ms, r.sort_key, lockstep_now() - r.ready_at AS waited
    FROM ready r
    WHERE r.pool = :pool AND r.tenant_id = :tenant_id AND r.sort_key >= :head_key AND {_RUNNABLE}
    ORDER BY r.sort_key, r.job_id LIMIT :limit
""")

LANE_HEADS = text("""
    SELECT r.job_id, r.tenant_id, r.lane, r.model_id, r.cost_ms, r.sort_key, lockstep_now() - r.ready_at AS waited
    FROM unnest(:tenant_ids, :head_keys) AS t(tenant_id, head_key)
    CROSS JOIN LATERAL (
        SELECT * FROM ready
        WHERE pool = :pool AND tenant_id = t.tenant_id AND lane = :lane AND sort_key >= t.head_key
        ORDER BY sort_key, job_id LIMIT :limit) r
    ORDER BY r.tenant_id, r.sort_key, r.job_id
""").bindparams(_TENANTS, bindparam("head_keys", type_=ARRAY(BigInteger())))

# Whoever is just writing a job of the tenant holds its row; whoever comes later waits, and sees what was done here.
HOLD_TENANT = text("""
    SELECT 1 FROM tenant_pools WHERE pool = :pool AND tenant_id = :tenant_id FOR UPDATE SKIP LOCKED
""")

LET_SLEEP = text(f"""
    UPDATE tenant_sched SET active = false WHERE pool = :pool AND tenant_id = :tenant_id
      AND NOT EXISTS (
        SELECT 1 FROM ready r WHERE r.pool = :pool AND r.tenant_id = :tenant_id AND r.sort_key >= :head_key
          AND {_RUNNABLE})
    RETURNING tenant_id
""")

MOVE_HEAD = text("""
    UPDATE tenant_sched s SET head_key = coalesce((
        SELECT min(r.sort_key) FROM ready r
        WHERE r.pool = s.pool AND r.tenant_id = s.tenant_id AND r.sort_key >= s.head_key), s.head_key)
    WHERE pool = :pool AND tenant_id = :tenant_id
""")

ADVANCE_POOL = text("UPDATE pools SET vtime = :vtime WHERE name = :pool AND vtime < :vtime")

# Those whose next job is just being written must not fall behind the pool's time: nobody would look there.
KEEP_UP = text("""
    UPDATE tenant_sched SET vtime = greatest(vtime, :vtime) WHERE pool = :pool AND tenant_id = ANY (:tenant_ids)
""").bindparams(_TENANTS)

# --- doorbells --------------------------------------------------------------------------------------------------

# Workers that wait for a doorbell in pools where a claim would find something: a queued job of a tenant that is
# under its cap once the notes which the next claim folds in are counted.
IDLE_WORKERS = text("""
    WITH idle AS MATERIALIZED (
        SELECT pool, id AS worker_id, heartbeat_at FROM workers
        WHERE state = 'idle' AND drained_at IS NULL AND heartbeat_at > lockstep_now() - :fresh),
    open AS MATERIALIZED (
        SELECT name AS pool, vtime FROM pools
        WHERE paused_at IS NULL AND name IN (SELECT pool FROM idle)),
    runnable AS MATERIALIZED (
        SELECT pool FROM open p
        WHERE EXISTS (
            SELECT 1 FROM tenant_sched s
            WHERE s.pool = p.pool AND s.active AND NOT s.paused AND s.running < s.max_running AND s.vtime >= p.vtime
              AND EXISTS (
                SELECT 1 FROM ready r WHERE r.pool = s.pool AND r.tenant_id = s.tenant_id
                  AND r.sort_key >= s.head_key
                  AND NOT EXISTS (SELECT 1 FROM models m WHERE m.id = r.model_id AND m.paused_at IS NOT NULL)))
        OR EXISTS (
            SELECT 1 FROM sched_notes n
            JOIN tenant_sched s ON s.pool = n.pool AND s.tenant_id = n.tenant_id
            JOIN tenant_pools c ON c.pool = n.pool AND c.tenant_id = n.tenant_id
            WHERE n.pool = p.pool AND c.paused_at IS NULL
              AND s.running - (
                SELECT coalesce(sum(m.released), 0) FROM sched_notes m
                WHERE m.pool = n.pool AND m.tenant_id = n.tenant_id) < c.max_running
              AND EXISTS (
                SELECT 1 FROM ready r WHERE r.pool = n.pool AND r.tenant_id = n.tenant_id
                  AND NOT EXISTS (SELECT 1 FROM models m WHERE m.id = r.model_id AND m.paused_at IS NOT NULL))))
    SELECT pool, worker_id, heartbeat_at, lockstep_now() AS now FROM idle JOIN runnable USING (pool)
""")

# --- what operators turn ----------------------------------------------------------------------------------------

CONFIGURE_TENANT = text("""
    UPDATE tenant_pools SET weight = coalesce(:weight, weight), max_running = coalesce(:max_running, max_running)
    WHERE pool = :pool AND tenant_id = :tenant_id RETURNING weight, max_running, paused_at
""").bindparams(bindparam("weight", type_=BigInteger()), bindparam("max_running", type_=BigInteger()))

_PAUSE = "paused_at = CASE WHEN :paused THEN coalesce(paused_at, lockstep_now()) END"

PAUSE_TENANT = text(f"""
    UPDATE tenant_pools SET {_PAUSE} WHERE pool = :pool AND tenant_id = :tenant_id RETURNING paused_at
""")

PAUSE_POOL = text(f"UPDATE pools SET {_PAUSE} WHERE name = :pool RETURNING paused_at")

PAUSE_MODEL = text(f"UPDATE models SET {_PAUSE} WHERE id = :model_id RETURNING paused_at")

# Tells the next claim that a tenant's configuration is another one, and idle workers that there may be work.
NOTE_TENANT = text("INSERT INTO sched_notes (pool, tenant_id) VALUES (:pool, :tenant_id)")

RING_POOL = text("SELECT pg_notify('lockstep_wake', :pool)")

# Tenants that have nothing but jobs of a paused model were let sleep.
WAKE_ALL = text("""
    WITH note AS (
        INSERT INTO sched_notes (pool, tenant_id, wake)
        SELECT s.pool, s.tenant_id, true FROM tenant_sched s
        WHERE NOT s.active
          AND EXISTS (SELECT 1 FROM ready r WHERE r.pool = s.pool AND r.tenant_id = s.tenant_id)
        RETURNING pool)
    SELECT pg_notify('lockstep_wake', pool) FROM (SELECT DISTINCT pool FROM note) n
""")

# Before the job's row, as a claim holds them: it may have its hold of the tenant and wait for the job.
SHARE_TENANT = text("""
    SELECT 1 FROM tenant_pools c JOIN jobs j ON j.pool = c.pool AND j.tenant_id = c.tenant_id
    WHERE j.id = :job_id FOR KEY SHARE OF c
""")

MOVE_JOB = text("""
    WITH moved AS (
        UPDATE jobs SET priority = :priority, sort_key = sort_key + (priority - :priority) * :boost_ms
        WHERE id = :job_id AND state = 'queued' RETURNING id, sort_key),
    placed AS (
        UPDATE ready r SET sort_key = m.sort_key FROM moved m WHERE r.job_id = m.id)
    SELECT id FROM moved
""")

CAP_KEY = text("UPDATE api_keys SET max_running = :max_running WHERE id = :api_key_id RETURNING id").bindparams(
    bindparam("max_running", type_=BigInteger())
)

# A cap holds for what is queued already: it leaves the queue until the key has room for it.
RECALL = text("""
    WITH open AS MATERIALIZED (
        SELECT id, state FROM jobs
        WHERE api_key_id = :api_key_id AND state IN ('queued', 'running') AND key_place IS NULL
        ORDER BY id FOR UPDATE),
    placed AS (
        UPDATE jobs j SET key_place = CASE WHEN o.state = 'running' THEN 'held' ELSE 'waiting' END
        FROM open o WHERE j.id = o.id)
    DELETE FROM ready r USING open o WHERE r.job_id = o.id
""")

# --- what is learned --------------------------------------------------------------------------------------------

OUTLOOK = text("SELECT * FROM queue_outlook(:job_id)")

# Of some jobs it is kept what was ahead of them when they were submitted, to see how late they started.
KEEP_START_ESTIMATE = text("""
    UPDATE jobs SET start_estimate_ms = (
        SELECT (q.running_ms + q.ahead_ms) / greatest(1, q.workers) FROM queue_outlook(:job_id) q
        WHERE q.workers > 0 AND NOT (q.pool_paused OR q.model_paused OR q.tenant_paused OR q.at_cap))
    WHERE id = :job_id
""")

# `is_whole`: one attempt did it all, and its time is the job's. `is_first`: the job started when it could.
ENDED_ATTEMPTS = text("""
    SELECT a.token, a.ended_at, j.pool, j.lane, j.kind, j.model_id, j.params, j.gpu_seconds, j.start_estimate_ms,
        a.started_at - j.created_at AS waited, a.outcome, a.ended_at - a.started_at AS took,
        coalesce(a.gpu_seconds, 0) AS attempt_gpu_seconds, j.priority, a.batch_token, a.batch_size, a.warm,
        a.outcome = 'succeeded' AND a.attempt = 1 AND j.attempt = 1 AND j.gpu_seconds > 0 AS is_whole,
        a.attempt = 1 AND a.token = (SELECT min(f.token) FROM job_attempts f WHERE f.tenant_id = a.tenant_id
            AND f.job_id = a.job_id) AS is_first
    FROM job_attempts a JOIN jobs j ON j.id = a.job_id
    WHERE (a.ended_at, a.token) > (
            coalesce((SELECT at FROM marks WHERE name = :name), '-infinity'),
            coalesce((SELECT token FROM marks WHERE name = :name), 0))
      AND a.ended_at < lockstep_now() - :settled
    ORDER BY a.ended_at, a.token LIMIT :limit
""")

MOVE_MARK = text("""
    INSERT INTO marks (name, at, token) VALUES (:name, :at, :token)
    ON CONFLICT (name) DO UPDATE SET at = excluded.at, token = excluded.token
""")

ADD_TO_TALLY = text("""
    INSERT INTO attempt_tallies AS t (pool, kind, outcome, attempts, seconds, gpu_seconds)
    VALUES (:pool, :kind, :outcome, :attempts, :seconds, :gpu_seconds)
    ON CONFLICT (pool, kind, outcome) DO UPDATE SET attempts = t.attempts + excluded.attempts,
        seconds = t.seconds + excluded.seconds, gpu_seconds = t.gpu_seconds + excluded.gpu_seconds
""")

ADD_WAITS = text("""
    INSERT INTO wait_tallies AS t (pool, priority, bound, starts, seconds)
    VALUES (:pool, :priority, :bound, :starts, :seconds)
    ON CONFLICT (pool, priority, bound) DO UPDATE SET starts = t.starts + excluded.starts,
        seconds = t.seconds + excluded.seconds
""")

ADD_BATCHES = text("""
    INSERT INTO batch_tallies AS t (pool, kind, warm, size, batches) VALUES (:pool, :kind, :warm, :size, :batches)
    ON CONFLICT (pool, kind, warm, size) DO UPDATE SET batches = t.batches + excluded.batches
""")

COSTS = text("SELECT key, samples, log_mean FROM cost_estimates WHERE key = ANY (:keys)").bindparams(
    bindparam("keys", type_=ARRAY(Text()))
)

KEEP_COST = text("""
    INSERT INTO cost_estimates (key, samples, log_mean) VALUES (:key, :samples, :log_mean)
    ON CONFLICT (key) DO UPDATE SET samples = excluded.samples, log_mean = excluded.log_mean
""")

CALIBRATION = text("""
    SELECT samples, median_log, high_log, within_median, within_high FROM start_calibrations WHERE pool = :pool
""")

KEEP_CALIBRATION = text("""
    INSERT INTO start_calibrations (pool, samples, median_log, high_log, within_median, within_high)
    VALUES (:pool, :samples, :median_log, :high_log, :within_median, :within_high)
    ON CONFLICT (pool) DO UPDATE SET samples = excluded.samples, median_log = excluded.median_log,
        high_log = excluded.high_log, within_median = excluded.within_median, within_high = excluded.within_high
""")
