"""Uploads that were announced and are on their way; pictures that share one object."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0015"
down_revision = "0019"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.execute("SET LOCAL lock_timeout = '5s'")
    op.add_column("files", sa.Column("deleting", sa.Boolean(), server_default=sa.false(), nullable=False))
    op.create_index("ix_files_same", "files", ["tenant_id", "sha256"], postgresql_where=sa.text("purpose = 'picture'"))
    op.execute("GRANT UPDATE (deleting) ON files TO lockstep_api")
    op.create_table(
        "uploads",
        sa.Column("id", sa.Text(collation="C"), nullable=False),
        sa.Column("tenant_id", sa.Text(collation="C"), nullable=False),
        sa.Column("purpose", sa.Text(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("key", sa.Text(), nullable=False),
        sa.Column("size_bytes", sa.BigInteger(), nullable=False),
        sa.Column("part_bytes", sa.BigInteger(), nullable=False),
        sa.Column("sha256", sa.Text(), nullable=True),
        sa.Column("file_id", sa.Text(collation="C"), nullable=True),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("lockstep_now()"), nullable=False),
        sa.Column("expires_at", sa.DateTime(timezone=True), nullable=False),
        sa.CheckConstraint("purpose IN ('picture', 'concept_upload')", name=op.f("ck_uploads_purpose")),
        sa.CheckConstraint("size_bytes > 0 AND part_bytes > 0", name=op.f("ck_uploads_size")),
        sa.ForeignKeyConstraint(["tenant_id"], ["tenants.id"], name=op.f("fk_uploads_tenant_id")),
        sa.ForeignKeyConstraint(
            ["tenant_id", "file_id"],
            ["files.tenant_id", "files.id"],
            name=op.f("fk_uploads_tenant_id_file_id"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_uploads")),
    )
    op.create_index(
        "ix_uploads_open", "uploads", ["tenant_id", "expires_at"], postgresql_where=sa.text("file_id IS NULL")
    )
    op.create_index(
        "ix_uploads_file", "uploads", ["tenant_id", "file_id"], postgresql_where=sa.text("file_id IS NOT NULL")
    )
    op.create_index("ix_uploads_expires", "uploads", ["expires_at"])
    op.execute("ALTER TABLE uploads ENABLE ROW LEVEL SECURITY")
    op.execute("ALTER TABLE uploads FORCE ROW LEVEL SECURITY")
    op.execute("CREATE POLICY owner_all ON uploads TO CURRENT_USER USING (true) WITH CHECK (true)")
    for role in ("worker", "operator"):
        op.execute(f"CREATE POLICY {role}_all ON uploads TO lockstep_{role} USING (true) WITH CHECK (true)")
    op.execute(
        "CREATE POLICY api_own ON uploads TO lockstep_api "
        "USING (tenant_id = (SELECT app_tenant())) WITH CHECK (tenant_id = (SELECT app_tenant()))"
    )
    op.execute("GRANT SELECT, INSERT, UPDATE (file_id), DELETE ON uploads TO lockstep_api")
    op.execute("GRANT SELECT, INSERT, UPDATE, DELETE ON uploads TO lockstep_worker")
    op.execute("GRANT SELECT ON uploads TO lockstep_operator")


def downgrade() -> None:
    op.execute("SET LOCAL lock_timeout = '5s'")
    op.drop_table("uploads")
    op.execute("REVOKE UPDATE (deleting) ON files FROM lockstep_api")
    op.drop_index("ix_files_same", "files")
    op.drop_column("files", "deleting")
