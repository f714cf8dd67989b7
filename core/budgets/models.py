"""Budgets, the ledger that they are counted from, and quotes. All amounts are GPU-milliseconds."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import (
    ARRAY,
    BigInteger,
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


class Budget(Base):
    """What a tenant, or one of its keys, may spend, and how much it has in hand.

    There is one for every tenant and key that has ever submitted a job, whether or not anybody has set a limit: a limit
    that is set later then counts what is already going on. Written only under the payer's lock.
    """

    __tablename__ = "budgets"
    __table_args__ = (
        UniqueConstraint("tenant_id", "api_key_id", postgresql_nulls_not_distinct=True),
        ForeignKeyConstraint(["tenant_id", "api_key_id"], ["api_keys.tenant_id", "api_keys.id"]),
        CheckConstraint("period IN ('none', 'month')", name="period"),
        CheckConstraint("(period = 'month') = (window_start IS NOT NULL)", name="window"),
        CheckConstraint("limit_ms >= 0", name="limit"),
        {"postgresql_with": {"fillfactor": 50}},
    )

    id: Mapped[int] = mapped_column(Identity(always=True), primary_key=True)
    tenant_id: Mapped[Name] = mapped_column(ForeignKey("tenants.id"))
    api_key_id: Mapped[Name | None]  # none: the tenant's own
    limit_ms: Mapped[int | None]  # none: no limit
    period: Mapped[str] = mapped_column(server_default=text("'none'"))
    hard: Mapped[bool] = mapped_column(server_default=text("true"))  # refuse what does not fit, not only warn of it
    window_start: Mapped[datetime | None]  # of the period that `base_ms` was spent before
    base_ms: Mapped[int] = mapped_column(server_default=text("0"))
    charged_ms: Mapped[int] = mapped_column(server_default=text("0"))  # ever
    reserved_ms: Mapped[int] = mapped_column(server_default=text("0"))  # for jobs that have not ended
    jobs: Mapped[int] = mapped_column(server_default=text("0"))  # that have not ended
    stored_bytes: Mapped[int] = mapped_column(server_default=text("0"))  # of a tenant's files


class LedgerEntry(Base):
    """A reservation, or its end: what is held back for a job, and in the end charged for it. Never changed.

    Two entries a job at most, so that nothing can be charged twice. There is no foreign key to the job: what was paid
    is remembered longer than what for.
    """

    __tablename__ = "ledger_entries"
    __table_args__ = (
        ForeignKeyConstraint(["tenant_id", "api_key_id"], ["api_keys.tenant_id", "api_keys.id"]),
        CheckConstraint("kind IN ('reserve', 'settle', 'release')", name="kind"),
        CheckConstraint("charged_ms >= 0 AND (charged_ms > 0) = (kind = 'settle')", name="charged"),
        CheckConstraint("CASE kind WHEN 'reserve' THEN reserved_ms >= 0 ELSE reserved_ms <= 0 END", name="reserved"),
        Index(
            "uq_ledger_entries_reserve", "tenant_id", "job_id", unique=True, postgresql_where=text("kind = 'reserve'")
        ),
        Index(
            "uq_ledger_entries_close", "tenant_id", "job_id", unique=True, postgresql_where=text("kind <> 'reserve'")
        ),
        Index("ix_ledger_entries_time", "tenant_id", "created_at"),
    )

    id: Mapped[int] = mapped_column(Identity(always=True), primary_key=True)
    tenant_id: Mapped[Name] = mapped_column(ForeignKey("tenants.id"))
    job_id: Mapped[Name]
    api_key_id: Mapped[Name | None]
    kind: Mapped[str]
    job_kind: Mapped[str]
    model_id: Mapped[Name]
    token: Mapped[int | None]  # of the attempt that ended the job
    reserved_ms: Mapped[int]  # what this adds to the reservations
    charged_ms: Mapped[int] = mapped_column(server_default=text("0"))
    created_at: Mapped[CreatedAt]


class BudgetNote(Base):
    """A change to what a tenant has in hand, left by whoever ends jobs or keeps files; the next look folds it in.

    So the end of a batch waits for no payer's lock, and locks of several tenants are never held at once.
    """

    __tablename__ = "budget_notes"
    __table_args__ = (
        Index("ix_budget_notes_tenant", "tenant_id"),
        {
            "postgresql_with": {
                "autovacuum_vacuum_scale_factor": 0,
                "autovacuum_vacuum_threshold": 1000,
                "autovacuum_vacuum_cost_delay": 0,
            }
        },
    )

    id: Mapped[int] = mapped_column(Identity(always=True), primary_key=True)
    tenant_id: Mapped[Name] = mapped_column(ForeignKey("tenants.id"))
    api_key_id: Mapped[Name | None]
    reserved_ms: Mapped[int] = mapped_column(server_default=text("0"))
    charged_ms: Mapped[int] = mapped_column(server_default=text("0"))
    jobs: Mapped[int] = mapped_column(server_default=text("0"))
    stored_bytes: Mapped[int] = mapped_column(server_default=text("0"))


class Quote(Base):
    """The most that one request may cost, if it comes in time; used once."""

    __tablename__ = "quotes"
    __table_args__ = (UniqueConstraint("tenant_id", "id"), Index("ix_quotes_expires", "expires_at"))

    id: Mapped[Name] = mapped_column(primary_key=True)
    tenant_id: Mapped[Name] = mapped_column(ForeignKey("tenants.id"))
    request_sha256: Mapped[str]
    amounts_ms: Mapped[list[int]] = mapped_column(ARRAY(BigInteger()))  # of each job it would make, in order
    expires_at: Mapped[datetime]
    used_at: Mapped[datetime | None]
    created_at: Mapped[CreatedAt]
