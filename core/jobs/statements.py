"""SQL of the job queue. Statements only: who runs them in which transaction is ``submission`` and ``execution``.

Rules kept here: a job's row is locked before its queue row (so a cancel and a claim cannot deadlock); every write
to a running job is guarded by its lease token; only the database's clock decides.

A job has a lease token while it runs and no longer, and a constraint holds that. Statements that know the token do not
name the state: Postgres would then read the index of leases, with all that have ended since it was last vacuumed.
"""

from __future__ import annotations

from collections.abc import Iterable

from sqlalchemy import BigInteger, Double, Interval, Select, Text, bindparam, select, text
from sqlalchemy.dialects.postgresql import ARRAY, JSONB

from core.budgets.statements import CLOSE
from core.db.paging import Place, nearest_first
from core.files.models import File
from core.jobs.models import Event, Job, JobAttempt

_ITEMS = bindparam("items", type_=JSONB)
_IDS = bindparam("ids", type_=ARRAY(Text()))
_TOKENS = bindparam("tokens", type_=ARRAY(BigInteger()))

# The deliveries that are owed for the events that were `written`: to the tenant's endpoints, and to the job's own
# webhook. To an endpoint that is disabled they are held.
OWED = """
    listening AS (
        SELECT w.id AS event_id, w.tenant_id, e.id, e.disabled_at
        FROM written w JOIN webhook_endpoints e ON e.tenant_id = w.tenant_id AND e.deleted_at IS NULL
          AND NOT e.on_request AND (e.event_types = '{}' OR w.type = ANY (e.event_types))
        UNION ALL
        SELECT w.id, w.tenant_id, e.id, e.disabled_at
        FROM written w JOIN jobs j ON j.id = w.job_id AND j.webhook IS NOT NULL
          AND (j.webhook -> 'event_types' = '[]' OR jsonb_exists(j.webhook -> 'event_types', w.type))
        JOIN webhook_endpoints e ON e.id = j.webhook ->> 'endpoint_id' AND e.deleted_at IS NULL),
    owed AS (
        INSERT INTO webhook_deliveries (id, tenant_id, endpoint_id, event_id, state, next_attempt_at)
        SELECT 'dlv_' || md5(id || event_id), tenant_id, id, event_id,
            CASE WHEN disabled_at IS NULL THEN 'pending' ELSE 'held' END,
            CASE WHEN disabled_at IS NULL THEN lockstep_now() END
        FROM listening)
"""

# Writes an event for each job that `happened` holds as it now stands, with its number, and the deliveries that are owed
# for it.
_WRITE_EVENTS = (
    """
    written AS (
        INSERT INTO events (id, tenant_id, job_id, sequence, type, data)
        SELECT 'evt_' || substr(id, 5) || lpad(event_sequence::text, 6, '0'), tenant_id, id, event_sequence,
            kind || '.' || verb,
            jsonb_strip_nulls(jsonb_build_object(
                'id', id, 'object', kind, 'state', state, 'attempt', attempt,
                'progress', progress, 'result', result, 'error', error)) || coalesce(extra, '{}')
        FROM happened RETURNING id, tenant_id, job_id, type),
"""
    + OWED
)

# --- claim and return -------------------------------------------------------------------------------------------

# All that a claim changes but the queue itself, in one statement: each job's row is written once.
TAKE = text(
    """
    WITH happened AS (
        UPDATE jobs SET state = 'running', stage = 'loading', attempt = attempt + 1, worker_id = :worker_id,
            lease_token = nextval('fence'), lease_until = lockstep_now() + :lease, started_at = lockstep_now(),
            event_sequence = event_sequence + 1
        WHERE id = ANY (:ids) AND state = 'queued' AND not_before IS NULL AND pause_requested_at IS NULL
          AND key_place IS DISTINCT FROM 'waiting'
        RETURNING id, tenant_id, kind, state, params, checkpoint, attempt, max_attempts, lease_token AS token, cost_ms,
            model_id, traceparent, created_at, event_sequence, progress, result, error, 'started' AS verb,
            NULL::jsonb AS extra),
    opened AS (
        INSERT INTO job_attempts (token, job_id, tenant_id, attempt, worker_id, batch_token, batch_size, warm)
        SELECT token, id, tenant_id, attempt, :worker_id, min(token) OVER (), count(*) OVER (), model_id = ANY (:warm)
        FROM happened),
    bill AS (
        SELECT tenant_id, count(*) AS jobs, sum(cost_ms) AS cost_ms FROM happened GROUP BY tenant_id),
    charged AS (
        UPDATE tenant_sched s
        SET running = s.running + b.jobs, vtime = s.vtime + greatest(b.jobs, b.cost_ms * 100 / s.weight)
        FROM bill b WHERE s.pool = :pool AND s.tenant_id = b.tenant_id),
"""
    + _WRITE_EVENTS
    + " SELECT id, token, tenant_id, params, checkpoint, attempt, max_attempts, traceparent, created_at FROM happened"
).bindparams(_IDS, bindparam("warm", type_=ARRAY(Text())))

# --- while it runs ----------------------------------------------------------------------------------------------

RENEW = text("""
    UPDATE jobs SET lease_until = lockstep_now() + :lease
    WHERE id = ANY (:ids) AND lease_token = ANY (:tokens)
    RETURNING lease_token AS token, cancel_requested_at IS NOT NULL AS cancel_requested,
        pause_requested_at IS NOT NULL AS pause_requested, yield_requested_at IS NOT NULL AS yield_requested
""").bindparams(_IDS, _TOKENS)

LOOK = text("""
    SELECT lease_token AS token, cancel_requested_at IS NOT NULL AS cancel_requested,
        pause_requested_at IS NOT NULL AS pause_requested, yield_requested_at IS NOT NULL AS yield_requested
    FROM jobs WHERE id = ANY (:ids) AND lease_token = ANY (:tokens)
""").bindparams(_IDS, _TOKENS)

REPORT = text("""
    UPDATE jobs SET stage = coalesce(:stage, stage), progress = coalesce(CAST(:progress AS jsonb), progress),
        checkpoint = coalesce(CAST(:checkpoint AS jsonb), checkpoint)
    WHERE id = :job_id AND lease_token = :token
    RETURNING id
""").bindparams(
    bindparam("stage", type_=Text()),
    bindparam("progress", type_=JSONB(none_as_null=True)),
    bindparam("checkpoint", type_=JSONB(none_as_null=True)),
)

# --- the end of an attempt --------------------------------------------------------------------------------------

# Whoever writes several running jobs holds them first, in one order: a renewal and a report, or an end, then cannot
# wait for each other.
HOLD = text("""
    SELECT id, cancel_requested_at IS NOT NULL AS cancel_requested
    FROM jobs WHERE id = ANY (:ids) AND lease_token = ANY (:tokens)
    ORDER BY id FOR UPDATE
""").bindparams(_IDS, _TOKENS)

# What follows for every job that `moved` out of running: its attempt is closed, its place and its cost are settled.
_SETTLE = """
    ended AS (
        UPDATE job_attempts a SET ended_at = lockstep_now(), outcome = m.outcome, error = m.error, timings = m.timings,
            gpu_seconds = m.gpu_seconds
        FROM moved m WHERE a.token = m.token),
    noted AS (
        INSERT INTO sched_notes (pool, tenant_id, released, refund_ms)
        SELECT pool, tenant_id, count(*), sum(cost_ms - (gpu_seconds * 1000)::bigint) FROM moved
        GROUP BY pool, tenant_id)
"""

# Attempts that the customer pays for: those that brought something, or that he stopped himself.
_BILLED_MS = "CASE WHEN i.outcome IN ('succeeded', 'canceled', 'returned') THEN round(i.gpu_seconds * 1000) ELSE 0 END"

FINISH = text(
    f"""
    WITH item AS (
        SELECT * FROM jsonb_to_recordset(:items)
        AS i(job_id text, token bigint, state text, outcome text, result jsonb, error jsonb, gpu_seconds float8,
            timings jsonb)),
    moved AS (
        UPDATE jobs j SET state = i.state, result = i.result,
            -- Whoever had it canceled may have said why.
            error = CASE WHEN i.state = 'canceled' THEN coalesce(i.error, j.error) ELSE i.error END,
            finished_at = lockstep_now(), gpu_seconds = j.gpu_seconds + i.gpu_seconds, stage = NULL,
            lease_token = NULL, lease_until = NULL,
            pause_requested_at = NULL, yield_requested_at = NULL, event_sequence = j.event_sequence + 1,
            charged_ms = CASE WHEN i.state = 'failed' THEN 0  -- nothing was delivered
                ELSE least(j.charged_ms + {_BILLED_MS}, CASE WHEN j.quote_id IS NOT NULL THEN j.reserved_ms END) END
        FROM item i WHERE j.id = i.job_id AND j.lease_token = i.token
        RETURNING j.id, j.pool, j.tenant_id, j.cost_ms, i.token, i.outcome, i.gpu_seconds, i.timings,
            j.kind, j.state, j.attempt, j.progress, j.result, j.error, j.event_sequence,
            j.api_key_id, j.model_id, j.reserved_ms, j.charged_ms),
    happened AS (SELECT *, state AS verb, NULL::jsonb AS extra FROM moved),
    closing AS (SELECT * FROM moved),
"""
    + _SETTLE
    + ","
    + CLOSE
    + ","
    + _WRITE_EVENTS
    + " SELECT id FROM moved"
).bindparams(_ITEMS)

REQUEUE = text(
    f"""
    WITH item AS (
        SELECT * FROM jsonb_to_recordset(:items)
        AS i(job_id text, token bigint, outcome text, error jsonb, delay_ms bigint, gpu_seconds float8)),
    moved AS (
        UPDATE jobs j SET state = 'queued',
            -- One that made way for others lets them go first, though it may be older.
            not_before = lockstep_now() + greatest(i.delay_ms * interval '1 millisecond',
                CASE WHEN j.yield_requested_at IS NOT NULL AND i.outcome = 'returned' THEN :rest END),
            yields = j.yields + (j.yield_requested_at IS NOT NULL AND i.outcome = 'returned')::int,
            yield_requested_at = NULL,
            -- Counted at the claim, so a worker that dies has used it up; one that gives the job back has not.
            attempt = j.attempt - (i.outcome = 'returned')::int,
            -- What failed once is tried by itself: if it brings the engine down, it does so alone.
            lane = CASE WHEN i.outcome = 'returned' THEN j.lane ELSE 'alone:' || j.id END,
            gpu_seconds = j.gpu_seconds + i.gpu_seconds, charged_ms = j.charged_ms + {_BILLED_MS},
            stage = NULL, lease_token = NULL, lease_until = NULL
        FROM item i WHERE j.id = i.job_id AND j.lease_token = i.token
        RETURNING j.id, j.pool, j.tenant_id, j.cost_ms, i.token, i.outcome, i.error, i.gpu_seconds,
            NULL::jsonb AS timings, j.pause_requested_at IS NOT NULL AS paused),
"""
    + _SETTLE
    + " SELECT id, paused FROM moved"
).bindparams(_ITEMS, bindparam("rest", type_=Interval()))

EXPIRED_LEASES = text("""
    SELECT id, lease_token AS token, attempt, max_attempts, cancel_requested_at IS NOT NULL AS cancel_requested
    FROM jobs WHERE state = 'running' AND lease_until < lockstep_now()
    ORDER BY lease_until LIMIT :limit FOR UPDATE SKIP LOCKED
""")

# --- inputs and products ----------------------------------------------------------------------------------------


def input_files(ids: Iterable[str]) -> Select[str, str, str]:
    """Ids, keys and hashes of the files a job works from."""
    return select(File.id, File.key, File.sha256).where(File.id.in_(list(ids)))


# --- events -----------------------------------------------------------------------------------------------------

# One event per job of `items`, numbered under the job's row lock.
RECORD_EVENTS = text(
    """
    WITH item AS (SELECT * FROM jsonb_to_recordset(:items) AS i(job_id text, verb text, extra jsonb)),
    happened AS (
        UPDATE jobs j SET event_sequence = j.event_sequence + 1 FROM item i WHERE j.id = i.job_id
        RETURNING j.id, j.tenant_id, j.event_sequence, j.kind, j.state, j.attempt, j.progress, j.result, j.error,
            i.verb, i.extra),
"""
    + _WRITE_EVENTS
    + " SELECT id FROM written"
).bindparams(_ITEMS)

# --- workers ----------------------------------------------------------------------------------------------------

HELD_BY = text("""
    SELECT id, lease_token AS token FROM jobs
    WHERE state = 'running' AND lease_until IS NOT NULL AND worker_id = :worker_id ORDER BY id FOR UPDATE
""")

REGISTER_WORKER = text("""
    INSERT INTO workers (id, pool, host, pid) VALUES (:worker_id, :pool, :host, :pid)
""")

BEAT = text("""
    UPDATE workers SET heartbeat_at = lockstep_now(), state = :state, device = coalesce(:device, device),
        warm_models = :warm_models, device_kind = :device_kind, utilization = :utilization,
        memory_used_bytes = :memory_used_bytes, memory_total_bytes = :memory_total_bytes,
        temperature_c = :temperature_c, power_w = :power_w
    WHERE id = :worker_id
""").bindparams(
    bindparam("device", type_=Text()),
    bindparam("device_kind", type_=Text()),
    bindparam("warm_models", type_=ARRAY(Text())),
    *(bindparam(name, type_=BigInteger()) for name in ("memory_used_bytes", "memory_total_bytes")),
    *(bindparam(name, type_=Double()) for name in ("utilization", "temperature_c", "power_w")),
)

FORGET_WORKERS = text("""
    UPDATE workers SET state = 'stopped' WHERE state <> 'stopped' AND heartbeat_at < lockstep_now() - :silent
    RETURNING id
""")

# --- reading ----------------------------------------------------------------------------------------------------


def job_by_id(job_id: str) -> Select[Job]:
    """One job, as the session's tenant sees it."""
    return select(Job).where(Job.id == job_id)


def jobs_by_ids(ids: Iterable[str]) -> Select[Job]:
    """Those of these jobs that the session's tenant has."""
    return select(Job).where(Job.id.in_(list(ids)))


def live_trainings(*, limit: int) -> Select[Job]:
    """The tenant's trainings that have not ended, the latest first."""
    going_on = Job.kind == "training", Job.state.in_(("queued", "running"))
    return select(Job).where(*going_on).order_by(Job.id.desc()).limit(limit)


def jobs_page(
    *,
    kind: str | None,
    state: str | None,
    parent_id: str | None,
    after: Place | None,
    before: Place | None,
    limit: int,
) -> Select[Job]:
    """Jobs, nearest to a place first."""
    query = select(Job)
    if kind is not None:
        query = query.where(Job.kind == kind)
    if state is not None:
        query = query.where(Job.state == state)
    if parent_id is not None:
        query = query.where(Job.parent_id == parent_id)
    return nearest_first(query, Job.created_at, Job.id, after=after, before=before, limit=limit)


def retry_of(job_id: str) -> Select[str]:
    """The job that is another try at this one."""
    return select(Job.id).where(Job.retry_of == job_id)


def live_distillation(student_id: str) -> Select[str]:
    """The distillation that is to make this student and has not ended."""
    going_on = Job.kind == "distillation", Job.state.in_(("queued", "running"))
    return select(Job.id).where(*going_on, Job.params["student_id"].astext == student_id).limit(1)


def attempts_of(job_id: str) -> Select[JobAttempt]:
    """A job's attempts, first to last."""
    return select(JobAttempt).where(JobAttempt.job_id == job_id).order_by(JobAttempt.token)


def events_of(job_id: str, *, after_sequence: int, limit: int) -> Select[Event]:
    """A job's events in order, from the one after ``after_sequence``."""
    return (
        select(Event)
        .where(Event.job_id == job_id, Event.sequence > after_sequence)
        .order_by(Event.sequence)
        .limit(limit)
    )
