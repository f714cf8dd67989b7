"""Concepts, the versions that trainings and imports make of them, and the tenants they are granted to."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from sqlalchemy import CheckConstraint, ForeignKey, ForeignKeyConstraint, Index, UniqueConstraint, text
from sqlalchemy.orm import Mapped, mapped_column, synonym

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


class ConceptGrant(Base):
    """Leave for another tenant to draw with a concept."""

    __tablename__ = "concept_grants"
    __table_args__ = (
        ForeignKeyConstraint(["tenant_id", "concept_id"], ["concepts.tenant_id", "concepts.id"]),
        CheckConstraint("grantee_id <> tenant_id", name="grantee"),
        Index("ix_concept_grants_page", "tenant_id", "concept_id", "created_at", "grantee_id"),
        Index("ix_concept_grants_grantee", "grantee_id", "concept_id"),
    )

    tenant_id: Mapped[Name] = mapped_column(primary_key=True)
    concept_id: Mapped[Name] = mapped_column(primary_key=True)
    grantee_id: Mapped[Name] = mapped_column(ForeignKey("tenants.id"), primary_key=True)
    created_at: Mapped[CreatedAt]

    id: Mapped[str] = synonym("grantee_id")  # among those of its concept


class GrantedUse(Base):
    """A job of the tenant that draws with another one's concept: what a revocation stops."""

    __tablename__ = "granted_uses"
    __table_args__ = (
        ForeignKeyConstraint(["tenant_id", "job_id"], ["jobs.tenant_id", "jobs.id"], ondelete="CASCADE"),
        Index("ix_granted_uses_concept", "tenant_id", "concept_id"),
    )

    tenant_id: Mapped[Name] = mapped_column(primary_key=True)
    job_id: Mapped[Name] = mapped_column(primary_key=True)
    concept_id: Mapped[Name] = mapped_column(primary_key=True)
