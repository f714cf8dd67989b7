"""The job, its attempts, its events, and the narrow rows it waits on."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from typing import Any

from sqlalchemy import (
    CheckConstraint,
    ForeignKey,
    ForeignKeyConstraint,
    Identity,
    Index,
    UniqueConstraint,
    text,
)
from sqlalchemy.orm import Mapped, mapped_column

from core.db.base import Base, CreatedAt, Name
from core.db.time import lockstep_now
from core.db.types import Xid8
from core.jobs.states import TERMINAL, JobState


def _listed(states: Iterable[JobState]) -> str:
    return ", ".join(sorted(f"'{state}'" for state in states))


class Job(Base):
    """One unit of work.

    While it runs, only whoever holds its lease token writes how it goes; requests to cancel or pause come from outside.
    """

    __tablename__ = "jobs"
    __table_args__ = (
        UniqueConstraint("tenant_id", "id"),
        UniqueConstraint("tenant_id", "retry_of"),  # what failed is tried again once: then the new job is
        CheckConstraint(f"state IN ({_listed(JobState)})", name="state"),
        CheckConstraint(f"(state IN ({_listed(TERMINAL)})) = (finished_at IS NOT NULL)", name="finished"),
        CheckConstraint(
            "(state = 'running') = (lease_token IS NOT NULL) AND (lease_token IS NULL) = (lease_until IS NULL)",
            name="leased",
        ),
        CheckConstraint("state <> 'running' OR started_at IS NOT NULL", name="started"),
        CheckConstraint("(state = 'succeeded') = (result IS NOT NULL)", name="result"),
        CheckConstraint("state <> 'failed' OR error IS NOT NULL", name="error"),
        CheckConstraint("not_before IS NULL OR state = 'queued'", name="not_before"),
        CheckConstraint("stage IS NULL OR state = 'running'", name="stage"),
        CheckConstraint("attempt BETWEEN 0 AND max_attempts", name="attempts"),
        CheckConstraint("NOT blocked OR state = 'queued'", name="blocked"),
        CheckConstraint("pause_requested_at IS NULL OR state IN ('queued', 'running')", name="paused"),
        CheckConstraint("yield_requested_at IS NULL OR state = 'running'", name="yielding"),
        CheckConstraint("priority BETWEEN -1 AND 1", name="priority"),
        CheckConstraint(
            "key_place IN ('waiting', 'held') AND (key_place IS DISTINCT FROM 'waiting' OR state <> 'running')",
            name="key_place",
        ),
        CheckConstraint("length(traceparent) = 55", name="traceparent"),
        ForeignKeyConstraint(["tenant_id", "parent_id"], ["jobs.tenant_id", "jobs.id"]),
        ForeignKeyConstraint(["tenant_id", "retry_of"], ["jobs.tenant_id", "jobs.id"]),
        ForeignKeyConstraint(["tenant_id", "api_key_id"], ["api_keys.tenant_id", "api_keys.id"]),
        Index("ix_jobs_page", "tenant_id", "created_at", "id"),
        Index("ix_jobs_leased", "lease_until", postgresql_where=text("state = 'running'")),
        Index("ix_jobs_waiting", "not_before", postgresql_where=text("not_before IS NOT NULL")),
        Index("ix_jobs_blocked", "id", postgresql_where=text("blocked")),
        Index(
            "ix_jobs_deadline",
            "deadline_at",
            postgresql_where=text("deadline_at IS NOT NULL AND state IN ('queued', 'running')"),
        ),
        Index(
            "ix_jobs_live_trainings",
            "id",
            postgresql_where=text("kind = 'training' AND state IN ('queued', 'running')"),
        ),
        Index("ix_jobs_finished", "tenant_id", "finished_at", postgresql_where=text("finished_at IS NOT NULL")),
        Index("ix_jobs_unsuccessful", "id", postgresql_where=text("state IN ('failed', 'canceled', 'expired')")),
        Index("ix_jobs_children", "parent_id", postgresql_where=text("parent_id IS NOT NULL")),
        Index(
            "ix_jobs_key_waiting",
            "api_key_id",
            "sort_key",
            "id",
            postgresql_where=text("key_place = 'waiting' AND state = 'queued'"),
        ),
        Index(
            "ix_jobs_key_held",
            "api_key_id",
            postgresql_where=text("key_place = 'held' AND state IN ('queued', 'running')"),
        ),
        {"postgresql_with": {"fillfactor": 85, "autovacuum_vacuum_scale_factor": 0.02}},
    )

    id: Mapped[Name] = mapped_column(primary_key=True)
    tenant_id: Mapped[Name] = mapped_column(ForeignKey("tenants.id"))
    api_key_id: Mapped[Name | None]  # by which it was submitted
    key_place: Mapped[str | None]  # of a key with a cap: whether the job has one of its places, or waits for one
    kind: Mapped[str]
    state: Mapped[str] = mapped_column(server_default=text("'queued'"))
    stage: Mapped[str | None]
    pool: Mapped[Name] = mapped_column(ForeignKey("pools.name"))
    lane: Mapped[Name]
    model_id: Mapped[Name] = mapped_column(ForeignKey("models.id"))
    priority: Mapped[int] = mapped_column(server_default=text("0"))
    sort_key: Mapped[int]  # its place among its tenant's jobs: `fairshare.sort_key`
    cost_ms: Mapped[int]
    start_estimate_ms: Mapped[int | None]  # the work ahead of it when it was submitted, of one in eight
    params: Mapped[dict[str, Any]]
    warnings: Mapped[list[dict[str, Any]]] = mapped_column(server_default=text("'[]'"))
    progress: Mapped[dict[str, Any] | None]
    checkpoint: Mapped[dict[str, Any] | None]  # {key, step}: where the next attempt goes on
    result: Mapped[dict[str, Any] | None]
    error: Mapped[dict[str, Any] | None]
    attempt: Mapped[int] = mapped_column(server_default=text("0"))
    max_attempts: Mapped[int]
    worker_id: Mapped[Name | None]
    lease_token: Mapped[int | None]
    lease_until: Mapped[datetime | None]
    not_before: Mapped[datetime | None]
    cancel_requested_at: Mapped[datetime | None]
    pause_requested_at: Mapped[datetime | None]  # set: not to be run, a running job is to stop
    deadline_at: Mapped[datetime | None]  # expired if it waits by then, canceled if it runs
    yield_requested_at: Mapped[datetime | None]  # its worker is to give it back for others, and it goes on later
    yields: Mapped[int] = mapped_column(server_default=text("0"))  # how often it did
    parent_id: Mapped[Name | None]  # the job this one was made for
    retry_of: Mapped[Name | None]  # the job that did not succeed, of which this is another try
    blocked: Mapped[bool] = mapped_column(server_default=text("false"))  # it waits for the jobs made for it
    event_sequence: Mapped[int] = mapped_column(server_default=text("0"))
    gpu_seconds: Mapped[float] = mapped_column(server_default=text("0"))
    reserved_ms: Mapped[int] = mapped_column(server_default=text("0"))  # what its payers' budgets hold back for it
    charged_ms: Mapped[int] = mapped_column(server_default=text("0"))  # what they pay: so far, and in the end for good
    webhook: Mapped[dict[str, Any] | None]  # of its own: {endpoint_id, url, event_types}
    quote_id: Mapped[Name | None]  # set: no more is charged than is reserved
    traceparent: Mapped[str | None]  # where in which trace it belongs: `core.tracing`
    created_at: Mapped[CreatedAt]
    started_at: Mapped[datetime | None]  # of the latest attempt
    finished_at: Mapped[datetime | None]


class JobAttempt(Base):
    """One worker's try at a job; the token is the fence that guards all it writes."""

    __tablename__ = "job_attempts"
    __table_args__ = (
        ForeignKeyConstraint(["tenant_id", "job_id"], ["jobs.tenant_id", "jobs.id"]),
        CheckConstraint("(outcome IS NULL) = (ended_at IS NULL)", name="ended"),
        Index("ix_job_attempts_job", "tenant_id", "job_id"),
        Index("ix_job_attempts_ended", "ended_at", "token", postgresql_where=text("ended_at IS NOT NULL")),
        {"postgresql_with": {"autovacuum_vacuum_scale_factor": 0.02}},
    )

    token: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    job_id: Mapped[Name]
    tenant_id: Mapped[Name] = mapped_column(ForeignKey("tenants.id"))
    attempt: Mapped[int]
    worker_id: Mapped[Name]
    batch_token: Mapped[int | None]  # the token of the batch's first
    batch_size: Mapped[int | None]
    warm: Mapped[bool | None]  # whether its worker held the model when it claimed the batch
    started_at: Mapped[CreatedAt]
    ended_at: Mapped[datetime | None]
    outcome: Mapped[str | None]
    error: Mapped[dict[str, Any] | None]
    timings: Mapped[dict[str, Any] | None]  # seconds of each part of the work, where its worker told
    gpu_seconds: Mapped[float | None]


class Event(Base):
    """Something that happened, once. To a job in order: ``sequence`` counts from 1 within it; else it is 1.

    ``xid`` and ``position`` order events over all jobs by commit: a reader that stops at the oldest running
    transaction never misses one that commits late.
    """

    __tablename__ = "events"
    __table_args__ = (
        UniqueConstraint("tenant_id", "id"),
        UniqueConstraint("job_id", "sequence"),
        ForeignKeyConstraint(["tenant_id", "job_id"], ["jobs.tenant_id", "jobs.id"]),
        Index("ix_events_page", "tenant_id", "xid", "position"),
        Index("ix_events_created", "tenant_id", "created_at"),  # for the cleaner
        {"postgresql_with": {"autovacuum_vacuum_scale_factor": 0.02}},
    )

    id: Mapped[Name] = mapped_column(primary_key=True)
    tenant_id: Mapped[Name] = mapped_column(ForeignKey("tenants.id"))
    job_id: Mapped[Name | None]
    sequence: Mapped[int]
    type: Mapped[str]
    data: Mapped[dict[str, Any]]
    created_at: Mapped[CreatedAt]
    xid: Mapped[int] = mapped_column(Xid8(), server_default=text("pg_current_xact_id()"))
    position: Mapped[int] = mapped_column(Identity(always=True))


class Ready(Base):
    """A job that may be claimed now: a narrow row, deleted at the claim, so that the queue stays small."""

    __tablename__ = "ready"
    __table_args__ = (
        ForeignKeyConstraint(["pool", "tenant_id"], ["tenant_pools.pool", "tenant_pools.tenant_id"]),
        Index("ix_ready_lane", "pool", "tenant_id", "lane", "sort_key", "job_id"),
        Index("ix_ready_job", "job_id"),
        {
            # Rows live for seconds: vacuum by count, and at once.
            "postgresql_with": {
                "autovacuum_vacuum_scale_factor": 0,
                "autovacuum_vacuum_threshold": 2000,
                "autovacuum_vacuum_cost_delay": 0,
            }
        },
    )

    pool: Mapped[Name] = mapped_column(primary_key=True)
    tenant_id: Mapped[Name] = mapped_column(primary_key=True)
    sort_key: Mapped[int] = mapped_column(primary_key=True)
    job_id: Mapped[Name] = mapped_column(primary_key=True)
    lane: Mapped[Name]
    model_id: Mapped[Name]
    cost_ms: Mapped[int]
    ready_at: Mapped[datetime] = mapped_column(server_default=lockstep_now())


class SchedNote(Base):
    """A change to a tenant's standing, left by whoever does not hold the pool's lock; the next claim folds it in."""

    __tablename__ = "sched_notes"
    __table_args__ = (
        ForeignKeyConstraint(["pool", "tenant_id"], ["tenant_pools.pool", "tenant_pools.tenant_id"]),
        Index("ix_sched_notes_pool", "pool", "tenant_id"),
        {
            "postgresql_with": {
                "autovacuum_vacuum_scale_factor": 0,
                "autovacuum_vacuum_threshold": 1000,
                "autovacuum_vacuum_cost_delay": 0,
            }
        },
    )

    id: Mapped[int] = mapped_column(Identity(always=True), primary_key=True)
    pool: Mapped[Name]
    tenant_id: Mapped[Name]
    wake: Mapped[bool] = mapped_column(server_default=text("false"))  # the tenant has work again
    released: Mapped[int] = mapped_column(server_default=text("0"))  # jobs that left `running`
    refund_ms: Mapped[int] = mapped_column(server_default=text("0"))  # estimated minus true cost
    least_key: Mapped[int | None]  # a job has come that sorts before all that were known


class Worker(Base):
    """A worker process: one row per start, kept fresh by its heartbeat."""

    __tablename__ = "workers"
    __table_args__ = (
        CheckConstraint("state IN ('starting', 'idle', 'busy', 'draining', 'stopped')", name="state"),
        CheckConstraint("device_kind IN ('gpu', 'cpu')", name="device_kind"),
        CheckConstraint("utilization BETWEEN 0 AND 1", name="utilization"),
        CheckConstraint("quarantined_at IS NULL OR drained_at IS NOT NULL", name="quarantined"),
        Index("ix_workers_pool", "pool", postgresql_where=text("state <> 'stopped'")),
    )

    id: Mapped[Name] = mapped_column(primary_key=True)
    pool: Mapped[Name] = mapped_column(ForeignKey("pools.name"))
    host: Mapped[str]
    pid: Mapped[int]
    state: Mapped[str] = mapped_column(server_default=text("'starting'"))
    device: Mapped[str | None]
    warm_models: Mapped[list[str]] = mapped_column(server_default=text("'{}'"))
    drained_at: Mapped[datetime | None]  # set by an operator: it claims nothing more
    drain_reason: Mapped[str | None]
    quarantined_at: Mapped[datetime | None]  # what it held was taken from it as well
    device_kind: Mapped[str | None]  # and how it fares: `workers.Vitals`
    utilization: Mapped[float | None]
    memory_used_bytes: Mapped[int | None]
    memory_total_bytes: Mapped[int | None]
    temperature_c: Mapped[float | None]
    power_w: Mapped[float | None]
    started_at: Mapped[CreatedAt]
    heartbeat_at: Mapped[CreatedAt]
