"""The log of privileged acts."""

from __future__ import annotations

from typing import Any

from sqlalchemy import Index
from sqlalchemy.orm import Mapped, mapped_column

from core.db.base import Base, CreatedAt, Name


class AuditEntry(Base):
    """Who did what to which object. Rows are only ever added: a trigger refuses all else, the owner's writes included.

    ``tenant_id`` is whom it concerns, without a foreign key: the entry stays when the tenant goes.
    """

    __tablename__ = "audit_log"
    __table_args__ = (
        Index("ix_audit_log_page", "created_at", "id"),
        Index("ix_audit_log_tenant", "tenant_id", "created_at", "id"),
    )

    id: Mapped[Name] = mapped_column(primary_key=True)
    tenant_id: Mapped[Name | None]
    actor: Mapped[str]  # the id of a key or a user, or `lockstepd`
    action: Mapped[str]
    object_id: Mapped[str]
    before: Mapped[dict[str, Any] | None]
    after: Mapped[dict[str, Any] | None]
    request_id: Mapped[str | None]
    created_at: Mapped[CreatedAt]
