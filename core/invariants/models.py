"""What the last look at the invariants found."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy.orm import Mapped, mapped_column

from core.db.base import Base, Name


class InvariantLook(Base):
    """One invariant, how much broke it at the last look, and when that was."""

    __tablename__ = "invariant_looks"

    name: Mapped[Name] = mapped_column(primary_key=True)
    broken: Mapped[int]
    looked_at: Mapped[datetime]
