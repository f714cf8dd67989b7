"""How workers' devices fare, workers that are quarantined, and the traces that jobs belong to."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0016"
down_revision = "0014"
branch_labels = None
depends_on = None

WORKER_COLUMNS = {
    "quarantined_at": sa.DateTime(timezone=True),
    "device_kind": sa.Text(),
    "utilization": sa.Double(),
    "memory_used_bytes": sa.BigInteger(),
    "memory_total_bytes": sa.BigInteger(),
    "temperature_c": sa.Double(),
    "power_w": sa.Double(),
}
WORKER_CHECKS = {
    "device_kind": "device_kind IN ('gpu', 'cpu')",
    "utilization": "utilization BETWEEN 0 AND 1",
    "quarantined": "quarantined_at IS NULL OR drained_at IS NOT NULL",
}
# What an operator who quarantines a worker writes of the attempts that are taken from it.
TAKEN_BACK = "ended_at, outcome, error, timings, gpu_seconds"


def upgrade() -> None:
    op.execute("SET LOCAL lock_timeout = '5s'")
    for name, kind in WORKER_COLUMNS.items():
        op.add_column("workers", sa.Column(name, kind, nullable=True))
    for name, condition in WORKER_CHECKS.items():
        op.create_check_constraint(op.f(f"ck_workers_{name}"), "workers", condition)
    op.add_column("jobs", sa.Column("traceparent", sa.Text(), nullable=True))
    op.create_check_constraint(op.f("ck_jobs_traceparent"), "jobs", "length(traceparent) = 55")
    op.execute("GRANT UPDATE (quarantined_at) ON workers TO lockstep_operator")
    op.execute(f"GRANT UPDATE ({TAKEN_BACK}) ON job_attempts TO lockstep_operator")


def downgrade() -> None:
    op.execute("SET LOCAL lock_timeout = '5s'")
    op.drop_constraint(op.f("ck_jobs_traceparent"), "jobs")
    op.drop_column("jobs", "traceparent")
    op.execute(f"REVOKE UPDATE ({TAKEN_BACK}) ON job_attempts FROM lockstep_operator")
    for name in WORKER_CHECKS:
        op.drop_constraint(op.f(f"ck_workers_{name}"), "workers")
    for name in reversed(WORKER_COLUMNS):
        op.drop_column("workers", name)
