"""How workers' devices fare, quarantine, the traces of jobs, and tallies of waits and batches."""

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
ATTEMPT_COLUMNS = {"batch_token": sa.BigInteger(), "batch_size": sa.BigInteger(), "warm": sa.Boolean()}
TALLIES = ("wait_tallies", "batch_tallies")
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
    for name, kind in ATTEMPT_COLUMNS.items():
        op.add_column("job_attempts", sa.Column(name, kind, nullable=True))
    op.create_table(
        "wait_tallies",
        sa.Column("pool", sa.Text(collation="C"), nullable=False),
        sa.Column("priority", sa.BigInteger(), nullable=False),
        sa.Column("bound", sa.Double(), nullable=False),
        sa.Column("starts", sa.BigInteger(), nullable=False),
        sa.Column("seconds", sa.Double(), nullable=False),
        sa.ForeignKeyConstraint(["pool"], ["pools.name"], name=op.f("fk_wait_tallies_pool")),
        sa.PrimaryKeyConstraint("pool", "priority", "bound", name=op.f("pk_wait_tallies")),
    )
    op.create_table(
        "batch_tallies",
        sa.Column("pool", sa.Text(collation="C"), nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("warm", sa.Boolean(), nullable=False),
        sa.Column("size", sa.BigInteger(), nullable=False),
        sa.Column("batches", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(["pool"], ["pools.name"], name=op.f("fk_batch_tallies_pool")),
        sa.PrimaryKeyConstraint("pool", "kind", "warm", "size", name=op.f("pk_batch_tallies")),
    )
    for table in TALLIES:
        op.execute(f"GRANT SELECT, INSERT, UPDATE, DELETE ON {table} TO lockstep_worker")
        op.execute(f"GRANT SELECT ON {table} TO lockstep_operator")
    op.execute("GRANT UPDATE (quarantined_at) ON workers TO lockstep_operator")
    op.execute(f"GRANT UPDATE ({TAKEN_BACK}) ON job_attempts TO lockstep_operator")


def downgrade() -> None:
    op.execute("SET LOCAL lock_timeout = '5s'")
    for table in TALLIES:
        op.drop_table(table)
    for name in ATTEMPT_COLUMNS:
        op.drop_column("job_attempts", name)
    op.drop_constraint(op.f("ck_jobs_traceparent"), "jobs")
    op.drop_column("jobs", "traceparent")
    op.execute(f"REVOKE UPDATE ({TAKEN_BACK}) ON job_attempts FROM lockstep_operator")
    for name in WORKER_CHECKS:
        op.drop_constraint(op.f(f"ck_workers_{name}"), "workers")
    for name in reversed(WORKER_COLUMNS):
        op.drop_column("workers", name)
