"""Budgets, the ledger, quotes and rate limits."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0012"
down_revision = "0011"
branch_labels = None
depends_on = None

# What the API may do with each new table.
API_RIGHTS = {
    "budgets": "SELECT, INSERT, UPDATE",
    "ledger_entries": "SELECT, INSERT",
    "budget_notes": "SELECT, INSERT, DELETE",
    "quotes": "SELECT, INSERT, UPDATE",
    "rate_buckets": "SELECT",
}
WORKER_RIGHTS = "SELECT, INSERT, UPDATE, DELETE"

# What is stored is counted wherever a file's row comes or goes.
NOTE_BYTES = """
CREATE FUNCTION note_stored_bytes() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
    INSERT INTO budget_notes (tenant_id, stored_bytes)
    SELECT tenant_id, CASE TG_OP WHEN 'INSERT' THEN 1 ELSE -1 END * sum(size_bytes) FROM changed GROUP BY tenant_id;
    RETURN NULL;
END $$
"""

# A token bucket by its one number, the time when it is full again (Generic Cell Rate Algorithm). Whose it is has just
# been looked up, so no tenant is set yet.
TAKE_FROM_BUCKET = """
CREATE FUNCTION take_token(for_tenant text, of_policy text, quota bigint, period interval)
RETURNS TABLE (taken boolean, full_in interval)
LANGUAGE sql SECURITY DEFINER SET search_path = public, pg_temp AS $$
    WITH took AS (
        INSERT INTO rate_buckets AS b (tenant_id, policy, full_at)
        VALUES (for_tenant, of_policy, lockstep_now() + period / quota)
        ON CONFLICT (tenant_id, policy) DO UPDATE
            SET full_at = greatest(b.full_at, lockstep_now()) + period / quota
            WHERE greatest(b.full_at, lockstep_now()) + period / quota <= lockstep_now() + period
        RETURNING full_at)
    SELECT true, full_at - lockstep_now() FROM took
    UNION ALL
    SELECT false, full_at - lockstep_now() FROM rate_buckets
    WHERE tenant_id = for_tenant AND policy = of_policy AND NOT EXISTS (SELECT FROM took)
$$
"""

# Every way in which jobs, ledger and budgets could disagree; no row is the truth.
MISMATCHES = """
CREATE FUNCTION ledger_mismatches() RETURNS TABLE (tenant_id text, subject text, problem text)
LANGUAGE sql STABLE AS $$
    WITH entry AS (
        SELECT e.tenant_id, e.job_id,
            sum(reserved_ms) FILTER (WHERE kind = 'reserve') AS opened_ms, sum(reserved_ms) AS reserved_ms,
            count(*) FILTER (WHERE kind <> 'reserve') AS closings, sum(charged_ms) AS charged_ms
        FROM ledger_entries e GROUP BY e.tenant_id, e.job_id),
    attempt AS (
        SELECT job_id, sum(round(gpu_seconds * 1000))
            FILTER (WHERE outcome IN ('succeeded', 'canceled', 'returned')) AS billed_ms
        FROM job_attempts GROUP BY job_id),
    job AS (
        SELECT j.*, j.finished_at IS NOT NULL AS ended,
            CASE WHEN j.state IN ('failed', 'expired') THEN 0
                ELSE least(coalesce(a.billed_ms, 0), CASE WHEN j.quote_id IS NOT NULL THEN j.reserved_ms END)
            END AS due_ms
        FROM jobs j LEFT JOIN attempt a ON a.job_id = j.id),
    counted AS (
        SELECT b.tenant_id, b.api_key_id, b.reserved_ms + coalesce(sum(n.reserved_ms), 0) AS reserved_ms,
            b.charged_ms + coalesce(sum(n.charged_ms), 0) AS charged_ms, b.jobs + coalesce(sum(n.jobs), 0) AS jobs,
            b.stored_bytes + coalesce(sum(n.stored_bytes) FILTER (WHERE b.api_key_id IS NULL), 0) AS stored_bytes
        FROM budgets b LEFT JOIN budget_notes n
            ON n.tenant_id = b.tenant_id AND (b.api_key_id IS NULL OR n.api_key_id = b.api_key_id)
        GROUP BY b.id),
    summed AS (
        SELECT b.tenant_id, b.api_key_id, coalesce(sum(l.reserved_ms), 0) AS reserved_ms,
            coalesce(sum(l.charged_ms), 0) AS charged_ms,
            coalesce(sum(CASE l.kind WHEN 'reserve' THEN 1 ELSE -1 END), 0) AS jobs
        FROM budgets b LEFT JOIN ledger_entries l
            ON l.tenant_id = b.tenant_id AND (b.api_key_id IS NULL OR l.api_key_id = b.api_key_id)
        GROUP BY b.id)
    SELECT j.tenant_id, j.id, 'no reservation, or another one than the job says'
    FROM job j LEFT JOIN entry e ON e.job_id = j.id AND e.tenant_id = j.tenant_id
    WHERE e.opened_ms IS DISTINCT FROM j.reserved_ms
    UNION ALL
    SELECT j.tenant_id, j.id, 'not closed exactly when it ended'
    FROM job j JOIN entry e ON e.job_id = j.id AND e.tenant_id = j.tenant_id
    WHERE e.closings <> j.ended::int OR e.reserved_ms <> CASE WHEN j.ended THEN 0 ELSE j.reserved_ms END
    UNION ALL
    SELECT j.tenant_id, j.id, 'charged otherwise than its attempts were used'
    FROM job j JOIN entry e ON e.job_id = j.id AND e.tenant_id = j.tenant_id
    WHERE j.ended AND (e.charged_ms <> j.charged_ms OR j.charged_ms <> j.due_ms)
    UNION ALL
    SELECT e.tenant_id, e.job_id, 'still reserved for, but gone'
    FROM entry e WHERE e.reserved_ms <> 0 AND NOT EXISTS (SELECT FROM jobs j WHERE j.id = e.job_id)
    UNION ALL
    SELECT c.tenant_id, coalesce(c.api_key_id, c.tenant_id), 'the budget is not the sum of the ledger'
    FROM counted c JOIN summed s ON s.tenant_id = c.tenant_id AND s.api_key_id IS NOT DISTINCT FROM c.api_key_id
    WHERE (c.reserved_ms, c.charged_ms, c.jobs) <> (s.reserved_ms, s.charged_ms, s.jobs)
    UNION ALL
    SELECT c.tenant_id, c.tenant_id, 'the bytes counted are not those of the files'
    FROM counted c
    WHERE c.api_key_id IS NULL
      AND c.stored_bytes <> (SELECT coalesce(sum(size_bytes), 0) FROM files f WHERE f.tenant_id = c.tenant_id)
$$
"""

# What went on before there was a ledger: reserved as estimated, and never charged.
BACKFILL = """
UPDATE jobs SET reserved_ms = cost_ms;
INSERT INTO ledger_entries (tenant_id, job_id, api_key_id, kind, job_kind, model_id, reserved_ms, created_at)
    SELECT tenant_id, id, api_key_id, 'reserve', kind, model_id, reserved_ms, created_at FROM jobs;
INSERT INTO ledger_entries (tenant_id, job_id, api_key_id, kind, job_kind, model_id, reserved_ms, created_at)
    SELECT tenant_id, id, api_key_id, 'release', kind, model_id, -reserved_ms, finished_at
    FROM jobs WHERE finished_at IS NOT NULL;
INSERT INTO budgets (tenant_id, api_key_id, reserved_ms, jobs)
    SELECT tenant_id, api_key_id, sum(reserved_ms), sum(CASE kind WHEN 'reserve' THEN 1 ELSE -1 END)
    FROM (
        SELECT tenant_id, api_key_id, kind, reserved_ms FROM ledger_entries WHERE api_key_id IS NOT NULL
        UNION ALL
        SELECT tenant_id, NULL, kind, reserved_ms FROM ledger_entries) e
    GROUP BY tenant_id, api_key_id;
INSERT INTO budget_notes (tenant_id, stored_bytes)
    SELECT tenant_id, sum(size_bytes) FROM files GROUP BY tenant_id
"""


def upgrade() -> None:
    op.execute("SET LOCAL lock_timeout = '5s'")
    op.add_column("jobs", sa.Column("reserved_ms", sa.BigInteger(), server_default="0", nullable=False))
    op.add_column("jobs", sa.Column("charged_ms", sa.BigInteger(), server_default="0", nullable=False))
    op.add_column("jobs", sa.Column("quote_id", sa.Text(collation="C"), nullable=True))
    op.add_column("job_attempts", sa.Column("gpu_seconds", sa.Float(), nullable=True))
    _make_budgets()
    _make_ledger()
    _make_quotes()
    for table, rights in API_RIGHTS.items():
        _guard(table, rights)
    # An operator may cancel anybody's job.
    op.execute("GRANT INSERT ON ledger_entries, budget_notes TO lockstep_operator")
    op.execute(BACKFILL)
    op.execute(NOTE_BYTES)
    for event, name in (("INSERT", "NEW"), ("DELETE", "OLD")):
        op.execute(
            f"CREATE TRIGGER note_{event.lower()} AFTER {event} ON files REFERENCING {name} TABLE AS changed "
            "FOR EACH STATEMENT EXECUTE FUNCTION note_stored_bytes()"
        )
    op.execute(TAKE_FROM_BUCKET)
    op.execute("REVOKE ALL ON FUNCTION take_token(text, text, bigint, interval) FROM PUBLIC")
    op.execute("GRANT EXECUTE ON FUNCTION take_token(text, text, bigint, interval) TO lockstep_api")
    op.execute(MISMATCHES)


def _make_budgets() -> None:
    op.create_table(
        "budgets",
        sa.Column("id", sa.BigInteger(), sa.Identity(always=True), nullable=False),
        sa.Column("tenant_id", sa.Text(collation="C"), nullable=False),
        sa.Column("api_key_id", sa.Text(collation="C"), nullable=True),
        sa.Column("limit_ms", sa.BigInteger(), nullable=True),
        sa.Column("period", sa.Text(), server_default=sa.text("'none'"), nullable=False),
        sa.Column("hard", sa.Boolean(), server_default=sa.true(), nullable=False),
        sa.Column("window_start", sa.DateTime(timezone=True), nullable=True),
        *(
            sa.Column(name, sa.BigInteger(), server_default="0", nullable=False)
            for name in ("base_ms", "charged_ms", "reserved_ms", "jobs", "stored_bytes")
        ),
        sa.CheckConstraint("period IN ('none', 'month')", name=op.f("ck_budgets_period")),
        sa.CheckConstraint("(period = 'month') = (window_start IS NOT NULL)", name=op.f("ck_budgets_window")),
        sa.CheckConstraint("limit_ms >= 0", name=op.f("ck_budgets_limit")),
        sa.ForeignKeyConstraint(["tenant_id"], ["tenants.id"], name=op.f("fk_budgets_tenant_id")),
        sa.ForeignKeyConstraint(
            ["tenant_id", "api_key_id"],
            ["api_keys.tenant_id", "api_keys.id"],
            name=op.f("fk_budgets_tenant_id_api_key_id"),
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_budgets")),
        sa.UniqueConstraint(
            "tenant_id",
            "api_key_id",
            name=op.f("uq_budgets_tenant_id_api_key_id"),
            postgresql_nulls_not_distinct=True,
        ),
        postgresql_with={"fillfactor": 50},
    )
    op.create_table(
        "budget_notes",
        sa.Column("id", sa.BigInteger(), sa.Identity(always=True), nullable=False),
        sa.Column("tenant_id", sa.Text(collation="C"), nullable=False),
        sa.Column("api_key_id", sa.Text(collation="C"), nullable=True),
        *(
            sa.Column(name, sa.BigInteger(), server_default="0", nullable=False)
            for name in ("reserved_ms", "charged_ms", "jobs", "stored_bytes")
        ),
        sa.ForeignKeyConstraint(["tenant_id"], ["tenants.id"], name=op.f("fk_budget_notes_tenant_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_budget_notes")),
        postgresql_with={
            "autovacuum_vacuum_scale_factor": 0,
            "autovacuum_vacuum_threshold": 1000,
            "autovacuum_vacuum_cost_delay": 0,
        },
    )
    op.create_index("ix_budget_notes_tenant", "budget_notes", ["tenant_id"])


def _make_ledger() -> None:
    op.create_table(
        "ledger_entries",
        sa.Column("id", sa.BigInteger(), sa.Identity(always=True), nullable=False),
        sa.Column("tenant_id", sa.Text(collation="C"), nullable=False),
        sa.Column("job_id", sa.Text(collation="C"), nullable=False),
        sa.Column("api_key_id", sa.Text(collation="C"), nullable=True),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("job_kind", sa.Text(), nullable=False),
        sa.Column("model_id", sa.Text(collation="C"), nullable=False),
        sa.Column("token", sa.BigInteger(), nullable=True),
        sa.Column("reserved_ms", sa.BigInteger(), nullable=False),
        sa.Column("charged_ms", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("lockstep_now()"), nullable=False),
        sa.CheckConstraint("kind IN ('reserve', 'settle', 'release')", name=op.f("ck_ledger_entries_kind")),
        sa.CheckConstraint(
            "charged_ms >= 0 AND (charged_ms > 0) = (kind = 'settle')", name=op.f("ck_ledger_entries_charged")
        ),
        sa.CheckConstraint(
            "CASE kind WHEN 'reserve' THEN reserved_ms >= 0 ELSE reserved_ms <= 0 END",
            name=op.f("ck_ledger_entries_reserved"),
        ),
        sa.ForeignKeyConstraint(["tenant_id"], ["tenants.id"], name=op.f("fk_ledger_entries_tenant_id")),
        sa.ForeignKeyConstraint(
            ["tenant_id", "api_key_id"],
            ["api_keys.tenant_id", "api_keys.id"],
            name=op.f("fk_ledger_entries_tenant_id_api_key_id"),
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_ledger_entries")),
    )
    for name, where in (("reserve", "kind = 'reserve'"), ("close", "kind <> 'reserve'")):
        op.create_index(
            f"uq_ledger_entries_{name}",
            "ledger_entries",
            ["tenant_id", "job_id"],
            unique=True,
            postgresql_where=sa.text(where),
        )
    op.create_index("ix_ledger_entries_time", "ledger_entries", ["tenant_id", "created_at"])


def _make_quotes() -> None:
    op.create_table(
        "quotes",
        sa.Column("id", sa.Text(collation="C"), nullable=False),
        sa.Column("tenant_id", sa.Text(collation="C"), nullable=False),
        sa.Column("request_sha256", sa.Text(), nullable=False),
        sa.Column("amounts_ms", postgresql.ARRAY(sa.BigInteger()), nullable=False),
        sa.Column("expires_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("used_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("lockstep_now()"), nullable=False),
        sa.ForeignKeyConstraint(["tenant_id"], ["tenants.id"], name=op.f("fk_quotes_tenant_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_quotes")),
        sa.UniqueConstraint("tenant_id", "id", name=op.f("uq_quotes_tenant_id_id")),
    )
    op.create_index("ix_quotes_expires", "quotes", ["expires_at"])
    op.create_table(
        "rate_buckets",
        sa.Column("tenant_id", sa.Text(collation="C"), nullable=False),
        sa.Column("policy", sa.Text(collation="C"), nullable=False),
        sa.Column("full_at", sa.DateTime(timezone=True), nullable=False),
        sa.ForeignKeyConstraint(["tenant_id"], ["tenants.id"], name=op.f("fk_rate_buckets_tenant_id")),
        sa.PrimaryKeyConstraint("tenant_id", "policy", name=op.f("pk_rate_buckets")),
        prefixes=["UNLOGGED"],
    )


def _guard(table: str, rights: str) -> None:
    """Force row-level security, with the policies that every tenant table has; nobody rewrites the ledger."""
    op.execute(f"ALTER TABLE {table} ENABLE ROW LEVEL SECURITY")
    op.execute(f"ALTER TABLE {table} FORCE ROW LEVEL SECURITY")
    op.execute(f"CREATE POLICY owner_all ON {table} TO CURRENT_USER USING (true) WITH CHECK (true)")
    op.execute(f"CREATE POLICY worker_all ON {table} TO lockstep_worker USING (true) WITH CHECK (true)")
    op.execute(
        f"CREATE POLICY api_own ON {table} TO lockstep_api "
        "USING (tenant_id = (SELECT app_tenant())) WITH CHECK (tenant_id = (SELECT app_tenant()))"
    )
    op.execute(f"CREATE POLICY operator_all ON {table} TO lockstep_operator USING (true) WITH CHECK (true)")
    op.execute(f"GRANT {rights} ON {table} TO lockstep_api")
    op.execute(f"GRANT SELECT ON {table} TO lockstep_operator")
    op.execute(f"GRANT {rights if table == 'ledger_entries' else WORKER_RIGHTS} ON {table} TO lockstep_worker")


def downgrade() -> None:
    op.execute("SET LOCAL lock_timeout = '5s'")
    op.execute("DROP FUNCTION ledger_mismatches()")
    op.execute("DROP FUNCTION take_token(text, text, bigint, interval)")
    for event in ("insert", "delete"):
        op.execute(f"DROP TRIGGER note_{event} ON files")
    op.execute("DROP FUNCTION note_stored_bytes()")
    for table in reversed(API_RIGHTS):
        op.drop_table(table)
    op.drop_column("job_attempts", "gpu_seconds")
    for column in ("quote_id", "charged_ms", "reserved_ms"):
        op.drop_column("jobs", column)
