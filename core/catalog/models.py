"""Models that jobs can name: base models and their students."""

from __future__ import annotations

from typing import Any

from sqlalchemy import CheckConstraint, ForeignKey, text
from sqlalchemy.orm import Mapped, mapped_column

from core.db.base import Base, CreatedAt, Name


class Model(Base):
    """A base model of the platform. ``location`` is a diffusers folder or a hub id."""

    __tablename__ = "models"
    __table_args__ = (CheckConstraint("kind IN ('base', 'student')", name="kind"),)

    id: Mapped[Name] = mapped_column(primary_key=True)
    tenant_id: Mapped[Name | None] = mapped_column(ForeignKey("tenants.id"), index=True)  # null: everybody's
    name: Mapped[Name] = mapped_column(unique=True)
    kind: Mapped[str] = mapped_column(server_default=text("'base'"))
    family: Mapped[str]
    location: Mapped[str]
    facts: Mapped[dict[str, Any]]  # what `lockstep.json` says: see catalog.facts.ModelFacts
    created_at: Mapped[CreatedAt]
