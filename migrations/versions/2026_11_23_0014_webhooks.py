"""Secrets that overlap, endpoints that are disabled, quiet or in order, deliveries that are held, events of no job."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0014"
down_revision = "0013"
branch_labels = None
depends_on = None

RESENT = "state, next_attempt_at, lease_token, attempts_before, delivered_at"  # what the API changes of a delivery
REASONS = "('requested', 'gone', 'failing')"


def upgrade() -> None:
    op.execute("SET LOCAL lock_timeout = '5s'")
    op.add_column("webhook_endpoints", sa.Column("previous_secret", sa.Text(), nullable=True))
    for name in ("previous_secret_expires_at", "disabled_at", "failing_since", "quiet_until"):
        op.add_column("webhook_endpoints", sa.Column(name, sa.DateTime(timezone=True), nullable=True))
    op.add_column("webhook_endpoints", sa.Column("disabled_reason", sa.Text(), nullable=True))
    op.add_column("webhook_endpoints", sa.Column("in_order", sa.Boolean(), server_default=sa.false(), nullable=False))
    op.add_column("webhook_endpoints", sa.Column("listening_since", sa.DateTime(timezone=True), nullable=True))
    op.execute("UPDATE webhook_endpoints SET listening_since = created_at")
    op.alter_column("webhook_endpoints", "listening_since", nullable=False, server_default=sa.text("lockstep_now()"))
    op.create_check_constraint(
        op.f("ck_webhook_endpoints_disabled"),
        "webhook_endpoints",
        f"(disabled_at IS NULL) = (disabled_reason IS NULL) AND disabled_reason IN {REASONS}",
    )
    op.create_check_constraint(
        op.f("ck_webhook_endpoints_previous_secret"),
        "webhook_endpoints",
        "(previous_secret IS NULL) = (previous_secret_expires_at IS NULL)",
    )
    op.create_index(
        "ix_webhook_endpoints_previous_secret",
        "webhook_endpoints",
        ["previous_secret_expires_at"],
        postgresql_where=sa.text("previous_secret_expires_at IS NOT NULL"),
    )
    op.create_index("ix_webhook_endpoints_in_order", "webhook_endpoints", ["id"], postgresql_where=sa.text("in_order"))
    op.add_column(
        "webhook_deliveries", sa.Column("attempts_before", sa.BigInteger(), server_default="0", nullable=False)
    )
    op.drop_constraint(op.f("ck_webhook_deliveries_state"), "webhook_deliveries")
    op.create_check_constraint(
        op.f("ck_webhook_deliveries_state"),
        "webhook_deliveries",
        "state IN ('pending', 'held', 'delivered', 'failed')",
    )
    op.create_index(
        "ix_webhook_deliveries_unsent",
        "webhook_deliveries",
        ["endpoint_id", "state", "created_at", "id"],
        postgresql_where=sa.text("state IN ('held', 'failed')"),
    )
    op.execute(f"GRANT UPDATE ({RESENT}) ON webhook_deliveries TO lockstep_api")
    op.alter_column("events", "job_id", nullable=True)


def downgrade() -> None:
    op.execute("SET LOCAL lock_timeout = '5s'")
    for table, condition in (
        (
            "webhook_attempts",
            "delivery_id IN (SELECT d.id FROM webhook_deliveries d JOIN events e ON e.id = d.event_id WHERE e.job_id IS NULL)",
        ),
        ("webhook_deliveries", "event_id IN (SELECT id FROM events WHERE job_id IS NULL)"),
        ("events", "job_id IS NULL"),
    ):
        op.execute(f"DELETE FROM {table} WHERE {condition}")
    op.alter_column("events", "job_id", nullable=False)
    op.execute(f"REVOKE UPDATE ({RESENT}) ON webhook_deliveries FROM lockstep_api")
    op.drop_index("ix_webhook_deliveries_unsent", "webhook_deliveries")
    op.drop_constraint(op.f("ck_webhook_deliveries_state"), "webhook_deliveries")
    op.execute("UPDATE webhook_deliveries SET state = 'failed' WHERE state = 'held'")
    op.create_check_constraint(
        op.f("ck_webhook_deliveries_state"), "webhook_deliveries", "state IN ('pending', 'delivered', 'failed')"
    )
    op.drop_column("webhook_deliveries", "attempts_before")
    for index in ("ix_webhook_endpoints_in_order", "ix_webhook_endpoints_previous_secret"):
        op.drop_index(index, "webhook_endpoints")
    for constraint in ("ck_webhook_endpoints_previous_secret", "ck_webhook_endpoints_disabled"):
        op.drop_constraint(op.f(constraint), "webhook_endpoints")
    for column in (
        "listening_since", "in_order", "disabled_reason", "quiet_until", "failing_since", "disabled_at",
        "previous_secret_expires_at", "previous_secret",
    ):  # fmt: skip
        op.drop_column("webhook_endpoints", column)
