"""What happens to a tenant's pictures that the safety checker finds unsafe."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.execute("SET LOCAL lock_timeout = '5s'")
    op.add_column("tenants", sa.Column("safety", sa.Text(), server_default=sa.text("'off'"), nullable=False))
    op.create_check_constraint(op.f("ck_tenants_safety"), "tenants", "safety IN ('off', 'flag', 'block')")


def downgrade() -> None:
    op.execute("SET LOCAL lock_timeout = '5s'")
    op.drop_column("tenants", "safety")
