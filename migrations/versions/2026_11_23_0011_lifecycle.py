"""Deadlines, yielding, retries by hand, how long a tenant's things are kept, and what a look at invariants found."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0011"
down_revision = "0010"
branch_labels = None
depends_on = None

KEPT = ("keep_jobs_days", "keep_events_days", "keep_files_days")
LARGE = ("jobs", "job_attempts", "events")  # a fifth of millions of rows is too many to lie about dead


def upgrade() -> None:
    op.execute("SET LOCAL lock_timeout = '5s'")
    op.add_column("jobs", sa.Column("deadline_at", sa.DateTime(timezone=True), nullable=True))
    op.add_column("jobs", sa.Column("yield_requested_at", sa.DateTime(timezone=True), nullable=True))
    op.add_column("jobs", sa.Column("yields", sa.BigInteger(), server_default="0", nullable=False))
    op.add_column("jobs", sa.Column("retry_of", sa.Text(collation="C"), nullable=True))
    op.create_foreign_key(
        op.f("fk_jobs_tenant_id_retry_of"), "jobs", "jobs", ["tenant_id", "retry_of"], ["tenant_id", "id"]
    )
    op.create_unique_constraint(op.f("uq_jobs_tenant_id_retry_of"), "jobs", ["tenant_id", "retry_of"])
    op.create_check_constraint(op.f("ck_jobs_yielding"), "jobs", "yield_requested_at IS NULL OR state = 'running'")
    op.create_index(
        "ix_jobs_deadline",
        "jobs",
        ["deadline_at"],
        postgresql_where=sa.text("deadline_at IS NOT NULL AND state IN ('queued', 'running')"),
    )
    op.create_index(
        "ix_jobs_finished",
        "jobs",
        ["tenant_id", "finished_at"],
        postgresql_where=sa.text("finished_at IS NOT NULL"),
    )
    op.create_index(
        "ix_jobs_live_trainings",
        "jobs",
        ["id"],
        postgresql_where=sa.text("kind = 'training' AND state IN ('queued', 'running')"),
    )
    op.create_index("ix_files_pairs", "files", ["id"], postgresql_where=sa.text("purpose = 'pairs'"))
    for name in KEPT:
        op.add_column("tenants", sa.Column(name, sa.BigInteger(), nullable=True))
        op.create_check_constraint(op.f(f"ck_tenants_{name}"), "tenants", f"{name} >= 0")
    op.drop_index("ix_events_created", "events")
    op.create_index("ix_events_created", "events", ["tenant_id", "created_at"])
    op.create_index("ix_files_key", "files", ["key"])
    op.create_index("ix_files_job", "files", ["tenant_id", "job_id"], postgresql_where=sa.text("job_id IS NOT NULL"))
    op.create_index(
        "ix_files_made",
        "files",
        ["tenant_id", "created_at"],
        postgresql_where=sa.text("purpose IN ('output', 'preview')"),
    )
    op.create_index("ix_concept_versions_file", "concept_versions", ["file_id"])
    op.create_table(
        "invariant_looks",
        sa.Column("name", sa.Text(collation="C"), nullable=False),
        sa.Column("broken", sa.BigInteger(), nullable=False),
        sa.Column("looked_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("name", name=op.f("pk_invariant_looks")),
    )
    op.execute("GRANT SELECT, INSERT, UPDATE, DELETE ON invariant_looks TO lockstep_worker")
    op.execute("GRANT SELECT ON invariant_looks TO lockstep_operator")
    for table in LARGE:
        op.execute(f"ALTER TABLE {table} SET (autovacuum_vacuum_scale_factor = 0.02)")


def downgrade() -> None:
    op.execute("SET LOCAL lock_timeout = '5s'")
    for table in LARGE:
        op.execute(f"ALTER TABLE {table} RESET (autovacuum_vacuum_scale_factor)")
    op.drop_table("invariant_looks")
    op.drop_index("ix_concept_versions_file", "concept_versions")
    for index in ("ix_files_pairs", "ix_files_made", "ix_files_job", "ix_files_key"):
        op.drop_index(index, "files")
    op.drop_index("ix_events_created", "events")
    op.create_index("ix_events_created", "events", ["created_at"])
    for name in KEPT:
        op.drop_constraint(op.f(f"ck_tenants_{name}"), "tenants")
        op.drop_column("tenants", name)
    for index in ("ix_jobs_live_trainings", "ix_jobs_finished", "ix_jobs_deadline"):
        op.drop_index(index, "jobs")
    for constraint in ("ck_jobs_yielding", "uq_jobs_tenant_id_retry_of", "fk_jobs_tenant_id_retry_of"):
        op.drop_constraint(op.f(constraint), "jobs")
    for column in ("retry_of", "yields", "yield_requested_at", "deadline_at"):
        op.drop_column("jobs", column)
