"""How workers' devices fare, quarantine, the traces of jobs, tallies of waits and batches, self tests."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0017"
down_revision = "0016"
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
# The maintainer removes the tenants of self tests; nobody else's ledger is anything that it could remove.
CLEARS = """
CREATE POLICY selftest_clears ON ledger_entries AS RESTRICTIVE FOR DELETE TO lockstep_worker
    USING (tenant_id IN (SELECT subject_id FROM self_tests WHERE subject_id IS NOT NULL))
"""
SELF_TEST_CHECKS = {
    "state": "state IN ('queued', 'running', 'succeeded', 'failed')",
    "live": "(live IS TRUE) = (finished_at IS NULL) AND live IS NOT FALSE",
    "finished": "(state IN ('queued', 'running')) = (finished_at IS NULL)",
}
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
    op.create_table(
        "self_tests",
        sa.Column("id", sa.Text(collation="C"), nullable=False),
        sa.Column("actor", sa.Text(), nullable=False),
        sa.Column("state", sa.Text(), server_default=sa.text("'queued'"), nullable=False),
        sa.Column("live", sa.Boolean(), server_default=sa.true(), nullable=True),
        sa.Column("stages", postgresql.JSONB(none_as_null=True), server_default=sa.text("'[]'"), nullable=False),
        sa.Column("error", sa.Text(), nullable=True),
        sa.Column("subject_id", sa.Text(collation="C"), nullable=True),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("lockstep_now()"), nullable=False),
        sa.Column("started_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("finished_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("until", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_self_tests")),
        sa.UniqueConstraint("live", name=op.f("uq_self_tests_live")),
    )
    for name, condition in SELF_TEST_CHECKS.items():
        op.create_check_constraint(op.f(f"ck_self_tests_{name}"), "self_tests", condition)
    for role in ("lockstep_worker", "lockstep_operator"):
        op.execute(f"GRANT SELECT, INSERT, UPDATE, DELETE ON self_tests TO {role}")
    op.execute(CLEARS)
    op.execute("GRANT DELETE ON ledger_entries TO lockstep_worker")
    for table in TALLIES:
        op.execute(f"GRANT SELECT, INSERT, UPDATE, DELETE ON {table} TO lockstep_worker")
        op.execute(f"GRANT SELECT ON {table} TO lockstep_operator")
    op.execute("GRANT UPDATE (quarantined_at) ON workers TO lockstep_operator")
    op.execute(f"GRANT UPDATE ({TAKEN_BACK}) ON job_attempts TO lockstep_operator")


def downgrade() -> None:
    op.execute("SET LOCAL lock_timeout = '5s'")
    op.execute("REVOKE DELETE ON ledger_entries FROM lockstep_worker")
    op.execute("DROP POLICY selftest_clears ON ledger_entries")
    for table in ("self_tests", *TALLIES):
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
