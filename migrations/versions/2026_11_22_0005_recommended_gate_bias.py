"""What a training's validation recommends to draw its concept with."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.execute("SET LOCAL lock_timeout = '5s'")
    op.add_column("concept_versions", sa.Column("gate_bias", sa.Float(), nullable=True))
    op.create_check_constraint(op.f("ck_concept_versions_gate_bias"), "concept_versions", "gate_bias BETWEEN 0 AND 1")


def downgrade() -> None:
    op.execute("SET LOCAL lock_timeout = '5s'")
    op.drop_column("concept_versions", "gate_bias")
