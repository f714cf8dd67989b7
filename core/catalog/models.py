"""Models that jobs can name: base models, and students that were distilled from them."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from sqlalchemy import CheckConstraint, ForeignKey, UniqueConstraint, text
from sqlalchemy.orm import Mapped, mapped_column

from core.db.base import Base, CreatedAt, Name


class Model(Base):
    """A model of the platform or of one tenant.

    ``location`` is a diffusers folder or a hub id. A student that a distillation makes has a ``file_id`` instead: its
    own U-Net, beside which everything else is its teacher's. Until the distillation has succeeded it has neither.
    """

    __tablename__ = "models"
    __table_args__ = (
        CheckConstraint("kind IN ('base', 'student')", name="kind"),
        CheckConstraint("(kind = 'student') = (teacher_id IS NOT NULL)", name="teacher"),
        CheckConstraint("location IS NULL OR file_id IS NULL", name="place"),
        CheckConstraint("location IS NOT NULL OR (kind = 'student' AND tenant_id IS NOT NULL)", name="located"),
        UniqueConstraint("tenant_id", "name", postgresql_nulls_not_distinct=True),
    )

    id: Mapped[Name] = mapped_column(primary_key=True)
    tenant_id: Mapped[Name | None] = mapped_column(ForeignKey("tenants.id"), index=True)  # null: everybody's
    name: Mapped[Name]
    kind: Mapped[str] = mapped_column(server_default=text("'base'"))
    family: Mapped[str]
    location: Mapped[str | None]
    teacher_id: Mapped[Name | None] = mapped_column(ForeignKey("models.id"))
    file_id: Mapped[Name | None] = mapped_column(ForeignKey("files.id", use_alter=True))
    paused_at: Mapped[datetime | None]  # set: none of its jobs is claimed
    facts: Mapped[dict[str, Any]]  # what `lockstep.json` says: see catalog.facts.ModelFacts
    created_at: Mapped[CreatedAt]

    @property
    def is_ready(self) -> bool:
        """Whether there is anything to draw with yet."""
        return self.location is not None or self.file_id is not None
