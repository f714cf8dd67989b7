"""Pauses, priority within a tenant, places of API keys, and standings that a claim reads by one index."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None

PAUSABLE = ("pools", "tenant_pools", "models")

# A claim's cost must not grow with tenants that cannot be served: the index holds only those that can.
PICK = "active AND NOT paused AND running < max_running"


def upgrade() -> None:
    op.execute("SET LOCAL lock_timeout = '5s'")
    for table in PAUSABLE:
        op.add_column(table, sa.Column("paused_at", sa.DateTime(timezone=True), nullable=True))
    _prepare_keys()
    _prepare_jobs()
    _prepare_standings()


def _prepare_keys() -> None:
    op.add_column("api_keys", sa.Column("max_running", sa.BigInteger(), nullable=True))
    op.create_check_constraint(op.f("ck_api_keys_cap"), "api_keys", "max_running >= 0")
    op.create_unique_constraint(op.f("uq_api_keys_tenant_id_id"), "api_keys", ["tenant_id", "id"])


def _prepare_jobs() -> None:
    op.add_column("jobs", sa.Column("api_key_id", sa.Text(collation="C"), nullable=True))
    op.add_column("jobs", sa.Column("key_place", sa.Text(), nullable=True))
    op.add_column("jobs", sa.Column("sort_key", sa.BigInteger(), nullable=True))
    op.execute("UPDATE jobs SET sort_key = (extract(epoch FROM created_at) * 1000)::bigint - priority * 60000")
    op.alter_column("jobs", "sort_key", nullable=False)
    op.create_foreign_key(
        op.f("fk_jobs_tenant_id_api_key_id"), "jobs", "api_keys", ["tenant_id", "api_key_id"], ["tenant_id", "id"]
    )
    op.create_check_constraint(op.f("ck_jobs_priority"), "jobs", "priority BETWEEN -1 AND 1")
    op.create_check_constraint(
        op.f("ck_jobs_key_place"),
        "jobs",
        "key_place IN ('waiting', 'held') AND (key_place IS DISTINCT FROM 'waiting' OR state <> 'running')",
    )
    op.create_index(
        "ix_jobs_key_waiting",
        "jobs",
        ["api_key_id", "sort_key", "id"],
        postgresql_where=sa.text("key_place = 'waiting' AND state = 'queued'"),
    )
    op.create_index(
        "ix_jobs_key_held",
        "jobs",
        ["api_key_id"],
        postgresql_where=sa.text("key_place = 'held' AND state IN ('queued', 'running')"),
    )


def _prepare_standings() -> None:
    op.add_column("tenant_sched", sa.Column("weight", sa.BigInteger(), server_default="100", nullable=False))
    op.add_column("tenant_sched", sa.Column("max_running", sa.BigInteger(), server_default="0", nullable=False))
    op.add_column("tenant_sched", sa.Column("paused", sa.Boolean(), server_default=sa.false(), nullable=False))
    op.add_column("tenant_sched", sa.Column("head_key", sa.BigInteger(), server_default="0", nullable=False))
    op.execute(
        "UPDATE tenant_sched s SET weight = c.weight, max_running = c.max_running FROM tenant_pools c "
        "WHERE c.pool = s.pool AND c.tenant_id = s.tenant_id"
    )
    op.alter_column("tenant_sched", "max_running", server_default=None)
    op.add_column("sched_notes", sa.Column("least_key", sa.BigInteger(), nullable=True))
    op.drop_index("ix_tenant_sched_pick", "tenant_sched")
    op.create_index(
        "ix_tenant_sched_pick", "tenant_sched", ["pool", "vtime", "tenant_id"], postgresql_where=sa.text(PICK)
    )
    for table in ("tenant_sched", "sched_notes"):
        op.execute(
            f"ALTER TABLE {table} SET (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 1000, "
            "autovacuum_vacuum_cost_delay = 0)"
        )


def downgrade() -> None:
    op.execute("SET LOCAL lock_timeout = '5s'")
    for table in ("tenant_sched", "sched_notes"):
        op.execute(
            f"ALTER TABLE {table} RESET (autovacuum_vacuum_scale_factor, autovacuum_vacuum_threshold, "
            "autovacuum_vacuum_cost_delay)"
        )
    op.drop_index("ix_tenant_sched_pick", "tenant_sched")
    op.create_index(
        "ix_tenant_sched_pick", "tenant_sched", ["pool", "vtime", "tenant_id"], postgresql_where=sa.text("active")
    )
    op.drop_column("sched_notes", "least_key")
    for column in ("head_key", "paused", "max_running", "weight"):
        op.drop_column("tenant_sched", column)
    op.drop_index("ix_jobs_key_held", "jobs")
    op.drop_index("ix_jobs_key_waiting", "jobs")
    for constraint in ("ck_jobs_key_place", "ck_jobs_priority", "fk_jobs_tenant_id_api_key_id"):
        op.drop_constraint(op.f(constraint), "jobs")
    for column in ("sort_key", "key_place", "api_key_id"):
        op.drop_column("jobs", column)
    op.drop_constraint(op.f("uq_api_keys_tenant_id_id"), "api_keys")
    op.drop_constraint(op.f("ck_api_keys_cap"), "api_keys")
    op.drop_column("api_keys", "max_running")
    for table in PAUSABLE:
        op.drop_column(table, "paused_at")
