"""An index of the webhook endpoints that fail or are disabled, for the operators' list of them."""

from __future__ import annotations

from alembic import op

revision = "0015"
down_revision = "0014"
branch_labels = None
depends_on = None

_TROUBLE = "deleted_at IS NULL AND (disabled_at IS NOT NULL OR failing_since IS NOT NULL)"


def upgrade() -> None:
    op.execute("SET LOCAL lock_timeout = '5s'")
    op.execute(f"CREATE INDEX ix_webhook_endpoints_trouble ON webhook_endpoints (id) WHERE {_TROUBLE}")


def downgrade() -> None:
    op.execute("SET LOCAL lock_timeout = '5s'")
    op.drop_index("ix_webhook_endpoints_trouble", "webhook_endpoints")
