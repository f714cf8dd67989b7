"""What jobs are learned to cost and when they start; workers that an operator takes out of service."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0009"
down_revision = "0008"
branch_labels = None
depends_on = None

# What is ahead of one of the caller's jobs: numbers about the whole pool, and nothing of whose they are. Each part looks
# at so many rows at most; what lies beyond is not what the job waits for first.
OUTLOOK = """
CREATE FUNCTION queue_outlook(wanted text) RETURNS TABLE (
    own_ahead bigint, others_ahead bigint, tenants_ahead bigint, running_ms bigint, ahead_ms bigint,
    workers bigint, pool_paused boolean, model_paused boolean, tenant_paused boolean, at_cap boolean,
    median_log double precision, high_log double precision)
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = public, pg_temp AS $$
    WITH me AS MATERIALIZED (
        SELECT j.id, j.pool, j.tenant_id, j.sort_key, j.model_id, p.vtime AS pool_vtime, p.paused_at AS pool_paused_at,
            greatest(s.vtime, p.vtime) AS vtime, s.weight, c.paused_at IS NOT NULL AS tenant_paused,
            s.running - (
                SELECT coalesce(sum(n.released), 0) FROM sched_notes n
                WHERE n.pool = j.pool AND n.tenant_id = j.tenant_id) >= c.max_running AS at_cap
        FROM jobs j
        JOIN pools p ON p.name = j.pool
        JOIN tenant_sched s ON s.pool = j.pool AND s.tenant_id = j.tenant_id
        JOIN tenant_pools c ON c.pool = j.pool AND c.tenant_id = j.tenant_id
        WHERE j.id = wanted AND j.tenant_id = app_tenant()),
    own AS MATERIALIZED (
        SELECT count(*) AS jobs, coalesce(sum(cost_ms), 0) AS cost_ms FROM me CROSS JOIN LATERAL (
            SELECT cost_ms FROM ready r
            WHERE r.pool = me.pool AND r.tenant_id = me.tenant_id AND r.sort_key <= me.sort_key AND r.job_id <> me.id
            ORDER BY r.sort_key, r.job_id LIMIT 1000) r),
    others AS MATERIALIZED (
        SELECT least(b.cost_ms, (me.vtime + own.cost_ms * 100 / me.weight - o.vtime) * o.weight / 100) AS cost_ms,
            least(b.jobs, ceil((me.vtime + own.cost_ms * 100 / me.weight - o.vtime) * o.weight / 100.0
                / greatest(1, b.cost_ms / greatest(1, b.jobs)))) AS jobs
        FROM me CROSS JOIN own CROSS JOIN LATERAL (
            SELECT s.tenant_id, s.vtime, s.weight FROM tenant_sched s
            WHERE s.pool = me.pool AND s.active AND NOT s.paused AND s.running < s.max_running
              AND s.vtime >= me.pool_vtime AND s.vtime <= me.vtime + own.cost_ms * 100 / me.weight
              AND s.tenant_id <> me.tenant_id
            ORDER BY s.vtime, s.tenant_id LIMIT 200) o
        CROSS JOIN LATERAL (
            SELECT count(*) AS jobs, coalesce(sum(r.cost_ms), 0) AS cost_ms FROM (
                SELECT cost_ms FROM ready r WHERE r.pool = me.pool AND r.tenant_id = o.tenant_id
                ORDER BY r.sort_key, r.job_id LIMIT 64) r) b
        WHERE b.jobs > 0),
    busy AS (
        SELECT coalesce(sum(greatest(0,
            r.cost_ms - extract(epoch FROM lockstep_now() - r.started_at)::bigint * 1000)), 0) AS cost_ms
        FROM (
            SELECT j.cost_ms, j.started_at FROM jobs j, me
            WHERE j.state = 'running' AND j.pool = me.pool AND j.lease_until IS NOT NULL LIMIT 2000) r)
    SELECT own.jobs, coalesce((SELECT sum(jobs) FROM others), 0)::bigint, (SELECT count(*) FROM others),
        busy.cost_ms::bigint, (own.cost_ms + coalesce((SELECT sum(cost_ms) FROM others), 0))::bigint,
        (SELECT count(*) FROM workers w WHERE w.pool = me.pool AND w.state IN ('starting', 'idle', 'busy') AND w.drained_at IS NULL
            AND w.heartbeat_at > lockstep_now() - interval '30 seconds'),
        me.pool_paused_at IS NOT NULL,
        EXISTS (SELECT 1 FROM models m WHERE m.id = me.model_id AND m.paused_at IS NOT NULL),
        me.tenant_paused, me.at_cap, c.median_log, c.high_log
    FROM me CROSS JOIN own CROSS JOIN busy LEFT JOIN start_calibrations c ON c.pool = me.pool
$$
"""
TABLES = ("cost_estimates", "start_calibrations", "marks", "attempt_tallies")


def upgrade() -> None:
    op.execute("SET LOCAL lock_timeout = '5s'")
    op.create_table(
        "cost_estimates",
        sa.Column("key", sa.Text(collation="C"), nullable=False),
        sa.Column("samples", sa.BigInteger(), nullable=False),
        sa.Column("log_mean", sa.Double(), nullable=False),
        sa.PrimaryKeyConstraint("key", name=op.f("pk_cost_estimates")),
    )
    op.create_table(
        "start_calibrations",
        sa.Column("pool", sa.Text(collation="C"), nullable=False),
        sa.Column("samples", sa.BigInteger(), nullable=False),
        sa.Column("median_log", sa.Double(), nullable=False),
        sa.Column("high_log", sa.Double(), nullable=False),
        sa.Column("within_median", sa.BigInteger(), nullable=False),
        sa.Column("within_high", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(["pool"], ["pools.name"], name=op.f("fk_start_calibrations_pool")),
        sa.PrimaryKeyConstraint("pool", name=op.f("pk_start_calibrations")),
    )
    op.create_table(
        "attempt_tallies",
        sa.Column("pool", sa.Text(collation="C"), nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("outcome", sa.Text(), nullable=False),
        sa.Column("attempts", sa.BigInteger(), nullable=False),
        sa.Column("seconds", sa.Double(), nullable=False),
        sa.Column("gpu_seconds", sa.Double(), nullable=False),
        sa.ForeignKeyConstraint(["pool"], ["pools.name"], name=op.f("fk_attempt_tallies_pool")),
        sa.PrimaryKeyConstraint("pool", "kind", "outcome", name=op.f("pk_attempt_tallies")),
    )
    op.create_table(
        "marks",
        sa.Column("name", sa.Text(collation="C"), nullable=False),
        sa.Column("at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("token", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("name", name=op.f("pk_marks")),
    )
    op.add_column("workers", sa.Column("drained_at", sa.DateTime(timezone=True), nullable=True))
    op.add_column("workers", sa.Column("drain_reason", sa.Text(), nullable=True))
    op.add_column("jobs", sa.Column("start_estimate_ms", sa.BigInteger(), nullable=True))
    op.create_index(
        "ix_job_attempts_ended", "job_attempts", ["ended_at", "token"], postgresql_where=sa.text("ended_at IS NOT NULL")
    )
    for table in TABLES:
        op.execute(f"GRANT SELECT, INSERT, UPDATE, DELETE ON {table} TO lockstep_worker")
    op.execute("GRANT SELECT ON cost_estimates TO lockstep_api")
    op.execute(OUTLOOK)
    op.execute("REVOKE ALL ON FUNCTION queue_outlook(text) FROM PUBLIC")
    op.execute("GRANT EXECUTE ON FUNCTION queue_outlook(text) TO lockstep_api, lockstep_worker")


def downgrade() -> None:
    op.execute("SET LOCAL lock_timeout = '5s'")
    op.execute("DROP FUNCTION queue_outlook(text)")
    op.drop_index("ix_job_attempts_ended", "job_attempts")
    op.drop_column("jobs", "start_estimate_ms")
    for column in ("drain_reason", "drained_at"):
        op.drop_column("workers", column)
    for table in TABLES:
        op.drop_table(table)
