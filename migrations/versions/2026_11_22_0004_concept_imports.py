"""Concept files from elsewhere: uploads of their own kind, and versions that no training made."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None

PURPOSES = "'picture', 'output', 'concept', 'pairs', 'preview', 'student'"

# An older release cannot tell where such a version came from, nor what such a file is.
REFUSE = """
DO $$ BEGIN
    IF EXISTS (SELECT FROM concept_versions WHERE job_id IS NULL)
        OR EXISTS (SELECT FROM files WHERE purpose = 'concept_upload')
    THEN RAISE EXCEPTION 'imported concepts or uploaded concept files exist: remove them first';
    END IF;
END $$
"""


def upgrade() -> None:
    op.execute("SET LOCAL lock_timeout = '5s'")
    op.alter_column("concept_versions", "job_id", nullable=True)
    op.add_column(
        "files", sa.Column("header", postgresql.JSONB(none_as_null=True, astext_type=sa.Text()), nullable=True)
    )
    op.drop_constraint(op.f("ck_files_purpose"), "files")
    op.create_check_constraint(op.f("ck_files_purpose"), "files", f"purpose IN ({PURPOSES}, 'concept_upload')")
    op.create_check_constraint(op.f("ck_files_header"), "files", "purpose <> 'concept_upload' OR header IS NOT NULL")
    op.execute("GRANT INSERT ON concept_versions TO lockstep_api")
    op.execute("GRANT UPDATE (purpose) ON files TO lockstep_api")


def downgrade() -> None:
    op.execute("SET LOCAL lock_timeout = '5s'")
    op.execute(REFUSE)
    op.execute("REVOKE UPDATE (purpose) ON files FROM lockstep_api")
    op.execute("REVOKE INSERT ON concept_versions FROM lockstep_api")
    op.drop_constraint(op.f("ck_files_header"), "files")
    op.drop_constraint(op.f("ck_files_purpose"), "files")
    op.create_check_constraint(op.f("ck_files_purpose"), "files", f"purpose IN ({PURPOSES})")
    op.drop_column("files", "header")
    op.alter_column("concept_versions", "job_id", nullable=False)
