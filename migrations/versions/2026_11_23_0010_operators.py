"""Operators, and the log of what they do."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0010"
down_revision = "0009"
branch_labels = None
depends_on = None

ROLE = """
DO $$ BEGIN
    IF NOT EXISTS (SELECT 1 FROM pg_roles WHERE rolname = 'lockstep_operator') THEN
        CREATE ROLE lockstep_operator NOLOGIN;
        GRANT lockstep_operator TO CURRENT_USER;
    END IF;
END $$
"""

KEY = """
CREATE FUNCTION resolve_api_key(wanted_sha256 text) RETURNS TABLE ({columns})
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = public, pg_temp AS $$
    SELECT {selected} FROM api_keys k JOIN tenants t ON t.id = k.tenant_id
    WHERE k.key_sha256 = wanted_sha256 AND k.revoked_at IS NULL
$$
"""
COLUMNS = {"key_id text": "k.id", "tenant_id text": "k.tenant_id", "scopes text[]": "k.scopes"}

# Nobody changes what was written, the owner of the table included.
KEEP = """
CREATE FUNCTION keep_audit() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'the audit log is only ever added to';
END $$
"""

# What operators may do beyond reading: what their levers need, and no more.
WRITES = {
    "pools": "UPDATE (paused_at)",
    "tenant_pools": "UPDATE (weight, max_running, paused_at)",
    "models": "UPDATE (paused_at)",
    "api_keys": "UPDATE (max_running)",
    "workers": "UPDATE (drained_at, drain_reason)",
    "jobs": "UPDATE",
    "ready": "UPDATE, DELETE",
    "sched_notes": "INSERT",
    "events": "INSERT",
    "webhook_deliveries": "INSERT",
    "audit_log": "INSERT",
}
NO_TENANTS = ("pools", "workers", "cost_estimates", "start_calibrations", "marks", "attempt_tallies", "alembic_version")
TENANTS = (
    "api_keys", "concept_versions", "concepts", "events", "files", "idempotency_keys", "job_attempts", "jobs", "models",
    "ready", "sched_notes", "tenant_pools", "tenant_sched", "tenants", "webhook_attempts", "webhook_deliveries",
    "webhook_endpoints",
)  # fmt: skip


def upgrade() -> None:
    op.execute("SET LOCAL lock_timeout = '5s'")
    op.execute(ROLE)
    op.add_column("tenants", sa.Column("is_operator", sa.Boolean(), server_default=sa.false(), nullable=False))
    _replace_resolving({**COLUMNS, "is_operator boolean": "t.is_operator"})
    op.create_table(
        "audit_log",
        sa.Column("id", sa.Text(collation="C"), nullable=False),
        sa.Column("tenant_id", sa.Text(collation="C"), nullable=True),
        sa.Column("actor", sa.Text(), nullable=False),
        sa.Column("action", sa.Text(), nullable=False),
        sa.Column("object_id", sa.Text(), nullable=False),
        sa.Column("before", postgresql.JSONB(none_as_null=True, astext_type=sa.Text()), nullable=True),
        sa.Column("after", postgresql.JSONB(none_as_null=True, astext_type=sa.Text()), nullable=True),
        sa.Column("request_id", sa.Text(), nullable=True),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("lockstep_now()"), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_audit_log")),
    )
    op.create_index("ix_audit_log_page", "audit_log", ["created_at", "id"])
    op.create_index("ix_audit_log_tenant", "audit_log", ["tenant_id", "created_at", "id"])
    op.execute(KEEP)
    op.execute(
        "CREATE TRIGGER keep BEFORE UPDATE OR DELETE OR TRUNCATE ON audit_log FOR EACH STATEMENT EXECUTE FUNCTION keep_audit()"
    )
    op.execute("ALTER TABLE audit_log ENABLE ROW LEVEL SECURITY")
    op.execute("ALTER TABLE audit_log FORCE ROW LEVEL SECURITY")
    op.execute("CREATE POLICY owner_all ON audit_log TO CURRENT_USER USING (true) WITH CHECK (true)")
    op.execute("CREATE POLICY worker_all ON audit_log TO lockstep_worker USING (true) WITH CHECK (true)")
    op.execute(
        "CREATE POLICY api_own ON audit_log TO lockstep_api "
        "USING (tenant_id = (SELECT app_tenant())) WITH CHECK (tenant_id = (SELECT app_tenant()))"
    )
    op.execute("GRANT SELECT, INSERT ON audit_log TO lockstep_api, lockstep_worker")
    for table in (*TENANTS, "audit_log"):
        op.execute(f"CREATE POLICY operator_all ON {table} TO lockstep_operator USING (true) WITH CHECK (true)")
    for table in (*TENANTS, *NO_TENANTS, "audit_log"):
        op.execute(f"GRANT SELECT ON {table} TO lockstep_operator")
    for table, rights in WRITES.items():
        op.execute(f"GRANT {rights} ON {table} TO lockstep_operator")


def _replace_resolving(columns: dict[str, str]) -> None:
    op.execute("DROP FUNCTION resolve_api_key(text)")
    op.execute(KEY.format(columns=", ".join(columns), selected=", ".join(columns.values())))
    op.execute("REVOKE ALL ON FUNCTION resolve_api_key(text) FROM PUBLIC")
    op.execute("GRANT EXECUTE ON FUNCTION resolve_api_key(text) TO lockstep_api")


def downgrade() -> None:
    op.execute("SET LOCAL lock_timeout = '5s'")
    for table in WRITES:
        op.execute(f"REVOKE ALL ON {table} FROM lockstep_operator")
    for table in (*TENANTS, *NO_TENANTS, "audit_log"):
        op.execute(f"REVOKE ALL ON {table} FROM lockstep_operator")
    for table in TENANTS:
        op.execute(f"DROP POLICY operator_all ON {table}")
    op.drop_table("audit_log")
    op.execute("DROP FUNCTION keep_audit()")
    _replace_resolving(COLUMNS)
    op.drop_column("tenants", "is_operator")
