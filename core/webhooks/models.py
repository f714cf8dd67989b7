"""Webhook endpoints (who wants to know), deliveries (one event for one endpoint) and attempts (one request)."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import CheckConstraint, ForeignKey, ForeignKeyConstraint, Index, UniqueConstraint, false, text
from sqlalchemy.orm import Mapped, mapped_column, relationship

from core.db.base import Base, CreatedAt, Name
from core.db.time import lockstep_now
from core.jobs.models import Event


class WebhookEndpoint(Base):
    """An address of a tenant; an empty ``event_types`` means every type.

    One that is ``on_request`` is of a host, and hears only of jobs that name an address there.
    """

    __tablename__ = "webhook_endpoints"
    __table_args__ = (
        UniqueConstraint("tenant_id", "id"),
        CheckConstraint(
            "(disabled_at IS NULL) = (disabled_reason IS NULL) AND disabled_reason IN ('requested', 'gone', 'failing')",
            name="disabled",
        ),
        CheckConstraint("(previous_secret IS NULL) = (previous_secret_expires_at IS NULL)", name="previous_secret"),
        CheckConstraint("on_request = (secret IS NULL)", name="secret"),
        Index(
            "uq_webhook_endpoints_host",
            "tenant_id",
            "url",
            unique=True,
            postgresql_where=text("on_request AND deleted_at IS NULL"),
        ),
        Index("ix_webhook_endpoints_page", "tenant_id", "created_at", "id"),
        Index(
            "ix_webhook_endpoints_previous_secret",
            "previous_secret_expires_at",
            postgresql_where=text("previous_secret_expires_at IS NOT NULL"),
        ),
        Index("ix_webhook_endpoints_in_order", "id", postgresql_where=text("in_order")),
        Index(
            "ix_webhook_endpoints_trouble",
            "id",
            postgresql_where=text("deleted_at IS NULL AND (disabled_at IS NOT NULL OR failing_since IS NOT NULL)"),
        ),
    )

    id: Mapped[Name] = mapped_column(primary_key=True)
    tenant_id: Mapped[Name] = mapped_column(ForeignKey("tenants.id"))
    name: Mapped[str]
    url: Mapped[str]
    event_types: Mapped[list[str]]
    secret: Mapped[str | None]  # `whsec_...`: it signs, so it cannot be kept as a hash; none: the tenant's own does
    previous_secret: Mapped[str | None]  # signs beside it until then
    previous_secret_expires_at: Mapped[datetime | None]
    on_request: Mapped[bool] = mapped_column(server_default=false())  # it stands for the webhooks of jobs to a host
    in_order: Mapped[bool] = mapped_column(server_default=false())  # a job's events one after the other
    created_at: Mapped[CreatedAt]
    listening_since: Mapped[CreatedAt]  # to these event types
    failing_since: Mapped[datetime | None]  # the first failure after which nothing was accepted
    quiet_until: Mapped[datetime | None]  # it asked for a pause
    disabled_at: Mapped[datetime | None]
    disabled_reason: Mapped[str | None]
    deleted_at: Mapped[datetime | None]


class WebhookDelivery(Base):
    """One event owed to one endpoint. ``next_attempt_at`` is null unless it is pending."""

    __tablename__ = "webhook_deliveries"
    __table_args__ = (
        ForeignKeyConstraint(["tenant_id", "endpoint_id"], ["webhook_endpoints.tenant_id", "webhook_endpoints.id"]),
        ForeignKeyConstraint(["tenant_id", "event_id"], ["events.tenant_id", "events.id"]),
        UniqueConstraint("event_id", "endpoint_id"),  # the event first: the cleaner looks deliveries up by it
        CheckConstraint("state IN ('pending', 'held', 'delivered', 'failed')", name="state"),
        CheckConstraint("(state = 'pending') = (next_attempt_at IS NOT NULL)", name="due"),
        # The endpoint first, so that one with a long backlog is stepped over, not read through.
        Index(
            "ix_webhook_deliveries_due", "endpoint_id", "next_attempt_at", postgresql_where=text("state = 'pending'")
        ),
        Index("ix_webhook_deliveries_page", "endpoint_id", "created_at", "id"),
        Index(
            "ix_webhook_deliveries_unsent",
            "endpoint_id",
            "state",
            "created_at",
            "id",
            postgresql_where=text("state IN ('held', 'failed')"),
        ),
        {"postgresql_with": {"fillfactor": 85}},
    )

    id: Mapped[Name] = mapped_column(primary_key=True)
    tenant_id: Mapped[Name] = mapped_column(ForeignKey("tenants.id"))
    endpoint_id: Mapped[Name]
    event_id: Mapped[Name]
    state: Mapped[str] = mapped_column(server_default=text("'pending'"))
    attempt: Mapped[int] = mapped_column(server_default=text("0"))
    attempts_before: Mapped[int] = mapped_column(server_default=text("0"))  # when it last became owed anew
    next_attempt_at: Mapped[datetime | None] = mapped_column(server_default=lockstep_now())
    lease_token: Mapped[int | None]  # the attempt in flight; a late answer with another token changes nothing
    created_at: Mapped[CreatedAt]
    delivered_at: Mapped[datetime | None]

    event: Mapped[Event] = relationship(viewonly=True, lazy="raise")


class WebhookAttempt(Base):
    """One request of a delivery and how it ended."""

    __tablename__ = "webhook_attempts"
    __table_args__ = (Index("ix_webhook_attempts_tenant", "tenant_id"),)

    delivery_id: Mapped[Name] = mapped_column(ForeignKey("webhook_deliveries.id"), primary_key=True)
    attempt: Mapped[int] = mapped_column(primary_key=True)
    tenant_id: Mapped[Name] = mapped_column(ForeignKey("tenants.id"))
    at: Mapped[CreatedAt]
    status: Mapped[int | None]  # HTTP status; null when no answer came
    error: Mapped[str | None]
    duration_ms: Mapped[int]
