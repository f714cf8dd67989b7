"""Self tests that were asked for, and how they went."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from sqlalchemy import CheckConstraint, text
from sqlalchemy.orm import Mapped, mapped_column

from core.db.base import Base, CreatedAt, Name


class SelfTest(Base):
    """One self test. ``live`` is true until it has ended, and then null: there is at most one that is."""

    __tablename__ = "self_tests"
    __table_args__ = (
        CheckConstraint("state IN ('queued', 'running', 'succeeded', 'failed')", name="state"),
        CheckConstraint("(live IS TRUE) = (finished_at IS NULL) AND live IS NOT FALSE", name="live"),
        CheckConstraint("(state IN ('queued', 'running')) = (finished_at IS NULL)", name="finished"),
    )

    id: Mapped[Name] = mapped_column(primary_key=True)
    actor: Mapped[str]
    state: Mapped[str] = mapped_column(server_default=text("'queued'"))
    live: Mapped[bool | None] = mapped_column(unique=True, server_default=text("true"))
    stages: Mapped[list[dict[str, Any]]] = mapped_column(server_default=text("'[]'"))
    error: Mapped[str | None]  # what kept it from being carried out at all
    subject_id: Mapped[Name | None]  # the synthetic tenant, until it is gone
    created_at: Mapped[CreatedAt]
    started_at: Mapped[datetime | None]
    finished_at: Mapped[datetime | None]
    until: Mapped[datetime]  # then it counts as cut off
