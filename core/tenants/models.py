"""Tenants, API keys, and a tenant's configuration and standing in a pool."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import CheckConstraint, ForeignKey, ForeignKeyConstraint, Index, UniqueConstraint, text
from sqlalchemy.orm import Mapped, mapped_column

from core.db.base import Base, CreatedAt, Name


class Tenant(Base):
    """An organisation: everything else belongs to one."""

    __tablename__ = "tenants"
    __table_args__ = (
        CheckConstraint("safety IN ('off', 'flag', 'block')", name="safety"),
        CheckConstraint("keep_jobs_days >= 0", name="keep_jobs_days"),
        CheckConstraint("keep_events_days >= 0", name="keep_events_days"),
        CheckConstraint("keep_files_days >= 0", name="keep_files_days"),
        CheckConstraint(
            "(previous_webhook_secret IS NULL) = (previous_webhook_secret_expires_at IS NULL)",
            name="previous_webhook_secret",
        ),
        Index(
            "ix_tenants_previous_webhook_secret",
            "previous_webhook_secret_expires_at",
            postgresql_where=text("previous_webhook_secret_expires_at IS NOT NULL"),
        ),
    )

    id: Mapped[Name] = mapped_column(primary_key=True)
    name: Mapped[str]
    safety: Mapped[str] = mapped_column(server_default=text("'off'"))  # a SafetyPolicy
    is_operator: Mapped[bool] = mapped_column(server_default=text("false"))  # its administrators run the deployment
    # How long its things are kept; none: as the settings have it, 0: for ever.
    keep_jobs_days: Mapped[int | None]
    keep_events_days: Mapped[int | None]
    keep_files_days: Mapped[int | None]
    webhook_secret: Mapped[str | None]  # signs the webhooks that requests name; made at their first use
    previous_webhook_secret: Mapped[str | None]  # signs beside it until then
    previous_webhook_secret_expires_at: Mapped[datetime | None]
    created_at: Mapped[CreatedAt]


class ApiKey(Base):
    """A key of a tenant; only its hash is kept."""

    __tablename__ = "api_keys"
    __table_args__ = (
        UniqueConstraint("tenant_id", "id"),
        CheckConstraint("max_running >= 0", name="cap"),
        Index("ix_api_keys_page", "tenant_id", "created_at", "id"),
    )

    id: Mapped[Name] = mapped_column(primary_key=True)
    tenant_id: Mapped[Name] = mapped_column(ForeignKey("tenants.id"))
    name: Mapped[str]
    hint: Mapped[str]  # the first characters, so that a person can tell keys apart
    key_sha256: Mapped[str] = mapped_column(unique=True)
    previous_sha256: Mapped[str | None] = mapped_column(unique=True)  # what it was before its last rotation
    previous_until: Mapped[datetime | None]  # so long that works as well
    scopes: Mapped[list[str]]
    max_running: Mapped[int | None]  # most of its jobs at once; none: as many as its tenant may run
    created_at: Mapped[CreatedAt]
    expires_at: Mapped[datetime | None]
    last_used_at: Mapped[datetime | None]  # written at most once a minute
    revoked_at: Mapped[datetime | None]


class RateBucket(Base):
    """When a tenant's bucket of one rate limit is full again; all that a token bucket needs to know.

    Unlogged: after a crash of the database every bucket is full.
    """

    __tablename__ = "rate_buckets"
    __table_args__ = {"prefixes": ["UNLOGGED"]}  # noqa: RUF012 - SQLAlchemy reads this attribute by name

    tenant_id: Mapped[Name] = mapped_column(ForeignKey("tenants.id"), primary_key=True)
    policy: Mapped[Name] = mapped_column(primary_key=True)
    full_at: Mapped[datetime]


class Pool(Base):
    """Workers and jobs that share GPUs. ``vtime`` is the virtual time of the last leader (see ``fairshare``)."""

    __tablename__ = "pools"

    name: Mapped[Name] = mapped_column(primary_key=True)
    vtime: Mapped[int] = mapped_column(server_default=text("0"))
    paused_at: Mapped[datetime | None]


class TenantPool(Base):
    """A tenant's configuration in a pool: cold, and the target of foreign keys from the queue."""

    __tablename__ = "tenant_pools"
    __table_args__ = (
        CheckConstraint("weight > 0", name="weight"),
        CheckConstraint("max_running >= 0", name="cap"),
    )

    pool: Mapped[Name] = mapped_column(ForeignKey("pools.name"), primary_key=True)
    tenant_id: Mapped[Name] = mapped_column(ForeignKey("tenants.id"), primary_key=True)
    weight: Mapped[int] = mapped_column(server_default=text("100"))
    max_running: Mapped[int]
    paused_at: Mapped[datetime | None]


class TenantSched(Base):
    """A tenant's standing in a pool: hot, and written only under the pool's lock.

    Its configuration is repeated here, so that one index holds those that can be served, in their order.
    """

    __tablename__ = "tenant_sched"
    __table_args__ = (
        ForeignKeyConstraint(["pool", "tenant_id"], ["tenant_pools.pool", "tenant_pools.tenant_id"]),
        CheckConstraint("running >= 0", name="running"),
        Index(
            "ix_tenant_sched_pick",
            "pool",
            "vtime",
            "tenant_id",
            postgresql_where=text("active AND NOT paused AND running < max_running"),
        ),
        # Half-empty pages keep the constant updates of one row on its own page.
        {
            "postgresql_with": {
                "fillfactor": 50,
                "autovacuum_vacuum_scale_factor": 0,
                "autovacuum_vacuum_threshold": 1000,
                "autovacuum_vacuum_cost_delay": 0,
            }
        },
    )

    pool: Mapped[Name] = mapped_column(primary_key=True)
    tenant_id: Mapped[Name] = mapped_column(primary_key=True)
    vtime: Mapped[int] = mapped_column(server_default=text("0"))
    running: Mapped[int] = mapped_column(server_default=text("0"))
    active: Mapped[bool] = mapped_column(server_default=text("false"))
    weight: Mapped[int] = mapped_column(server_default=text("100"))
    max_running: Mapped[int]
    paused: Mapped[bool] = mapped_column(server_default=text("false"))
    head_key: Mapped[int] = mapped_column(server_default=text("0"))  # no queued job sorts before it
