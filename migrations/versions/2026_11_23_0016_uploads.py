"""Uploads that were announced; pictures that share one object; webhooks that requests name for their jobs."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0016"
down_revision = "0015"
branch_labels = None
depends_on = None

SECRETS = "webhook_secret, previous_webhook_secret, previous_webhook_secret_expires_at"


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
    _add_webhooks_of_requests()


def _add_webhooks_of_requests() -> None:
    op.add_column(
        "jobs", sa.Column("webhook", postgresql.JSONB(none_as_null=True, astext_type=sa.Text()), nullable=True)
    )
    for name in ("webhook_secret", "previous_webhook_secret"):
        op.add_column("tenants", sa.Column(name, sa.Text(), nullable=True))
    op.add_column("tenants", sa.Column("previous_webhook_secret_expires_at", sa.DateTime(timezone=True), nullable=True))
    op.create_check_constraint(
        op.f("ck_tenants_previous_webhook_secret"),
        "tenants",
        "(previous_webhook_secret IS NULL) = (previous_webhook_secret_expires_at IS NULL)",
    )
    op.create_index(
        "ix_tenants_previous_webhook_secret",
        "tenants",
        ["previous_webhook_secret_expires_at"],
        postgresql_where=sa.text("previous_webhook_secret_expires_at IS NOT NULL"),
    )
    op.execute(f"GRANT UPDATE ({SECRETS}) ON tenants TO lockstep_api")
    op.add_column("webhook_endpoints", sa.Column("on_request", sa.Boolean(), server_default=sa.false(), nullable=False))
    op.alter_column("webhook_endpoints", "secret", nullable=True)
    op.create_check_constraint(
        op.f("ck_webhook_endpoints_secret"), "webhook_endpoints", "on_request = (secret IS NULL)"
    )
    op.create_index(
        "uq_webhook_endpoints_host",
        "webhook_endpoints",
        ["tenant_id", "url"],
        unique=True,
        postgresql_where=sa.text("on_request AND deleted_at IS NULL"),
    )


def downgrade() -> None:
    op.execute("SET LOCAL lock_timeout = '5s'")
    requested = "SELECT id FROM webhook_endpoints WHERE on_request"
    op.execute(
        "DELETE FROM webhook_attempts WHERE delivery_id IN ("
        f"SELECT id FROM webhook_deliveries WHERE endpoint_id IN ({requested}))"
    )
    op.execute(f"DELETE FROM webhook_deliveries WHERE endpoint_id IN ({requested})")
    op.execute("DELETE FROM webhook_endpoints WHERE on_request")
    op.drop_index("uq_webhook_endpoints_host", "webhook_endpoints")
    op.drop_constraint(op.f("ck_webhook_endpoints_secret"), "webhook_endpoints")
    op.alter_column("webhook_endpoints", "secret", nullable=False)
    op.drop_column("webhook_endpoints", "on_request")
    op.execute(f"REVOKE UPDATE ({SECRETS}) ON tenants FROM lockstep_api")
    op.drop_constraint(op.f("ck_tenants_previous_webhook_secret"), "tenants")
    for column in ("previous_webhook_secret_expires_at", "previous_webhook_secret", "webhook_secret"):
        op.drop_column("tenants", column)
    op.drop_column("jobs", "webhook")
    op.drop_table("uploads")
    op.execute("REVOKE UPDATE (deleting) ON files FROM lockstep_api")
    op.drop_index("ix_files_same", "files")
    op.drop_column("files", "deleting")
