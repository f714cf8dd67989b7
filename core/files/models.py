"""Uploaded and produced objects. The bytes lie in object storage under ``key``."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from sqlalchemy import CheckConstraint, ForeignKey, ForeignKeyConstraint, Index, UniqueConstraint, false, text
from sqlalchemy.orm import Mapped, mapped_column

from core.db.base import Base, CreatedAt, Name


class File(Base):
    """A stored object that belongs to a tenant. Equal pictures are files of their own on one object."""

    __tablename__ = "files"
    __table_args__ = (
        UniqueConstraint("tenant_id", "id"),
        ForeignKeyConstraint(["tenant_id", "job_id"], ["jobs.tenant_id", "jobs.id"]),
        CheckConstraint("size_bytes >= 0", name="size"),
        CheckConstraint(
            "purpose IN ('picture', 'output', 'concept', 'pairs', 'preview', 'student', 'concept_upload')",
            name="purpose",
        ),
        CheckConstraint("purpose <> 'concept_upload' OR header IS NOT NULL", name="header"),
        Index("ix_files_page", "tenant_id", "created_at", "id"),
        # What retention asks: which objects are still somebody's, what a job left, and what is old among what was made.
        Index("ix_files_key", "key"),
        Index("ix_files_job", "tenant_id", "job_id", postgresql_where=text("job_id IS NOT NULL")),
        Index("ix_files_pairs", "id", postgresql_where=text("purpose = 'pairs'")),
        Index("ix_files_same", "tenant_id", "sha256", postgresql_where=text("purpose = 'picture'")),
        Index("ix_files_made", "tenant_id", "created_at", postgresql_where=text("purpose IN ('output', 'preview')")),
    )

    id: Mapped[Name] = mapped_column(primary_key=True)
    tenant_id: Mapped[Name] = mapped_column(ForeignKey("tenants.id"))
    purpose: Mapped[str]
    name: Mapped[str]
    key: Mapped[str]
    media_type: Mapped[str]
    size_bytes: Mapped[int]
    sha256: Mapped[str]
    width: Mapped[int | None]
    height: Mapped[int | None]
    job_id: Mapped[Name | None]  # the job that produced it
    deleting: Mapped[bool] = mapped_column(server_default=false())  # its object may be gone already
    header: Mapped[dict[str, Any] | None]  # what an uploaded concept file says: see concepts.header.ConceptHeader
    created_at: Mapped[CreatedAt]


class PresignedUpload(Base):
    """An upload that was announced. Its parts lie under ``key``; ``file_id`` is set once it has become a file."""

    __tablename__ = "uploads"
    __table_args__ = (
        ForeignKeyConstraint(["tenant_id", "file_id"], ["files.tenant_id", "files.id"], ondelete="CASCADE"),
        CheckConstraint("purpose IN ('picture', 'concept_upload')", name="purpose"),
        CheckConstraint("size_bytes > 0 AND part_bytes > 0", name="size"),
        Index("ix_uploads_open", "tenant_id", "expires_at", postgresql_where=text("file_id IS NULL")),
        Index("ix_uploads_file", "tenant_id", "file_id", postgresql_where=text("file_id IS NOT NULL")),
        Index("ix_uploads_expires", "expires_at"),
    )

    id: Mapped[Name] = mapped_column(primary_key=True)
    tenant_id: Mapped[Name] = mapped_column(ForeignKey("tenants.id"))
    purpose: Mapped[str]
    name: Mapped[str]
    key: Mapped[str]
    size_bytes: Mapped[int]  # of all parts, as announced
    part_bytes: Mapped[int]  # of each part but the last
    sha256: Mapped[str | None]  # as announced
    file_id: Mapped[Name | None]
    created_at: Mapped[CreatedAt]
    expires_at: Mapped[datetime]
