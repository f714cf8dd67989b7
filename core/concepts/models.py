"""Concepts, and the versions that trainings and imports make of them."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from sqlalchemy import CheckConstraint, ForeignKey, ForeignKeyConstraint, Index, UniqueConstraint, text
from sqlalchemy.orm import Mapped, mapped_column

from core.db.base import Base, CreatedAt, Name


class Concept(Base):
    """What Perfusion learns of a thing; ``latest_version`` is null until there is a version."""

    __tablename__ = "concepts"
    __table_args__ = (
        UniqueConstraint("tenant_id", "id"),
        # A name is free again once its concept is deleted.
        Index("uq_concepts_name", "tenant_id", "name", unique=True, postgresql_where=text("deleted_at IS NULL")),
        Index("ix_concepts_page", "tenant_id", "created_at", "id"),
        CheckConstraint("name ~ '^[a-z0-9]+(-[a-z0-9]+)*$' AND length(name) <= 64", name="name"),
    )

    id: Mapped[Name] = mapped_column(primary_key=True)
    tenant_id: Mapped[Name] = mapped_column(ForeignKey("tenants.id"))
    name: Mapped[Name]
    superclass: Mapped[str]
    model_id: Mapped[Name] = mapped_column(ForeignKey("models.id"))
    latest_version: Mapped[int | None]
    created_at: Mapped[CreatedAt]
    deleted_at: Mapped[datetime | None]


class ConceptVersion(Base):
    """One concept file: a training's, or an imported one, which has no job."""

    __tablename__ = "concept_versions"
    __table_args__ = (
        ForeignKeyConstraint(["tenant_id", "concept_id"], ["concepts.tenant_id", "concepts.id"]),
        ForeignKeyConstraint(["tenant_id", "file_id"], ["files.tenant_id", "files.id"]),
        ForeignKeyConstraint(["tenant_id", "job_id"], ["jobs.tenant_id", "jobs.id"]),
        Index("ix_concept_versions_file", "file_id"),
        UniqueConstraint("job_id"),  # a training makes one version, however often it is finished
        CheckConstraint("version > 0", name="version"),
        CheckConstraint("gate_bias BETWEEN 0 AND 1", name="gate_bias"),
    )

    concept_id: Mapped[Name] = mapped_column(primary_key=True)
    version: Mapped[int] = mapped_column(primary_key=True)
    tenant_id: Mapped[Name] = mapped_column(ForeignKey("tenants.id"))
    job_id: Mapped[Name | None]
    file_id: Mapped[Name]
    key_lock: Mapped[str]
    gate_bias: Mapped[float | None]  # to draw it with by default; null: the model's
    metrics: Mapped[dict[str, Any]]
    created_at: Mapped[CreatedAt]
