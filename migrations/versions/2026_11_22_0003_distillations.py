"""Distillations: jobs made for jobs, pauses, and students that belong to a tenant."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None

PURPOSES = "'picture', 'output', 'concept'"


# An older release can neither run nor show what came with this one.
REFUSE = f"""
DO $$ BEGIN
    IF EXISTS (SELECT FROM models WHERE kind = 'student')
        OR EXISTS (SELECT FROM jobs WHERE kind IN ('distillation', 'teacher_pairs') OR pause_requested_at IS NOT NULL)
        OR EXISTS (SELECT FROM files WHERE purpose NOT IN ({PURPOSES}))
    THEN RAISE EXCEPTION 'students, distillations, their files or paused jobs exist: remove them first';
    END IF;
END $$
"""


def upgrade() -> None:
    op.execute("SET LOCAL lock_timeout = '5s'")
    op.add_column("jobs", sa.Column("pause_requested_at", sa.DateTime(timezone=True), nullable=True))
    op.add_column("jobs", sa.Column("parent_id", sa.Text(collation="C"), nullable=True))
    op.add_column("jobs", sa.Column("blocked", sa.Boolean(), server_default=sa.text("false"), nullable=False))
    op.create_check_constraint(op.f("ck_jobs_blocked"), "jobs", "NOT blocked OR state = 'queued'")
    op.create_check_constraint(
        op.f("ck_jobs_paused"), "jobs", "pause_requested_at IS NULL OR state IN ('queued', 'running')"
    )
    op.create_foreign_key(
        op.f("fk_jobs_tenant_id_parent_id"), "jobs", "jobs", ["tenant_id", "parent_id"], ["tenant_id", "id"]
    )
    op.create_index("ix_jobs_blocked", "jobs", ["id"], postgresql_where=sa.text("blocked"))
    op.create_index("ix_jobs_children", "jobs", ["parent_id"], postgresql_where=sa.text("parent_id IS NOT NULL"))
    op.drop_constraint(op.f("ck_files_purpose"), "files")
    op.create_check_constraint(
        op.f("ck_files_purpose"), "files", f"purpose IN ({PURPOSES}, 'pairs', 'preview', 'student')"
    )
    _give_models_to_tenants()


def _give_models_to_tenants() -> None:
    op.add_column("models", sa.Column("teacher_id", sa.Text(collation="C"), nullable=True))
    op.add_column("models", sa.Column("file_id", sa.Text(collation="C"), nullable=True))
    op.alter_column("models", "location", nullable=True)
    op.create_foreign_key(op.f("fk_models_teacher_id"), "models", "models", ["teacher_id"], ["id"])
    op.create_foreign_key(op.f("fk_models_file_id"), "models", "files", ["file_id"], ["id"])
    op.create_check_constraint(op.f("ck_models_teacher"), "models", "(kind = 'student') = (teacher_id IS NOT NULL)")
    op.create_check_constraint(op.f("ck_models_place"), "models", "location IS NULL OR file_id IS NULL")
    op.create_check_constraint(
        op.f("ck_models_located"),
        "models",
        "location IS NOT NULL OR (kind = 'student' AND tenant_id IS NOT NULL)",
    )
    op.drop_constraint(op.f("uq_models_name"), "models")
    op.create_unique_constraint(
        op.f("uq_models_tenant_id_name"), "models", ["tenant_id", "name"], postgresql_nulls_not_distinct=True
    )
    op.execute(
        "CREATE POLICY api_make ON models FOR INSERT TO lockstep_api "
        "WITH CHECK (tenant_id = (SELECT app_tenant()) AND kind = 'student')"
    )
    # Where a student lies is for workers to write.
    op.execute("GRANT INSERT (id, tenant_id, name, kind, family, teacher_id, facts) ON models TO lockstep_api")
    op.execute(
        "CREATE POLICY api_change ON models FOR UPDATE TO lockstep_api "
        "USING (tenant_id = (SELECT app_tenant()) AND kind = 'student' AND file_id IS NULL)"
    )
    op.execute("GRANT UPDATE (teacher_id, family, facts) ON models TO lockstep_api")


def downgrade() -> None:
    op.execute("SET LOCAL lock_timeout = '5s'")
    op.execute(REFUSE)
    op.execute("REVOKE INSERT, UPDATE ON models FROM lockstep_api")
    op.execute("DROP POLICY api_make ON models")
    op.execute("DROP POLICY api_change ON models")
    op.drop_constraint(op.f("uq_models_tenant_id_name"), "models")
    op.create_unique_constraint(op.f("uq_models_name"), "models", ["name"])
    for constraint in ("ck_models_located", "ck_models_place", "ck_models_teacher", "fk_models_file_id"):
        op.drop_constraint(op.f(constraint), "models")
    op.drop_constraint(op.f("fk_models_teacher_id"), "models")
    op.alter_column("models", "location", nullable=False)
    op.drop_column("models", "file_id")
    op.drop_column("models", "teacher_id")
    op.drop_constraint(op.f("ck_files_purpose"), "files")
    op.create_check_constraint(op.f("ck_files_purpose"), "files", f"purpose IN ({PURPOSES})")
    op.drop_index("ix_jobs_children", "jobs")
    op.drop_index("ix_jobs_blocked", "jobs")
    op.drop_constraint(op.f("fk_jobs_tenant_id_parent_id"), "jobs")
    op.drop_constraint(op.f("ck_jobs_paused"), "jobs")
    op.drop_constraint(op.f("ck_jobs_blocked"), "jobs")
    for column in ("blocked", "parent_id", "pause_requested_at"):
        op.drop_column("jobs", column)
