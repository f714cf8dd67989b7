"""SQL of files."""

from __future__ import annotations

from collections.abc import Iterable

from sqlalchemy import Delete, Select, delete, select, update
from sqlalchemy.sql.dml import ReturningUpdate

from core.db.paging import Place, nearest_first
from core.files.models import File


def file_by_id(file_id: str) -> Select[File]:
    """One file, as the session's tenant sees it."""
    return select(File).where(File.id == file_id)


def files_by_ids(ids: Iterable[str]) -> Select[File]:
    """Those of these files that the session's tenant has."""
    return select(File).where(File.id.in_(list(ids)))


def files_page(*, purpose: str | None, after: Place | None, before: Place | None, limit: int) -> Select[File]:
    """Files, newest first."""
    query = select(File)
    if purpose is not None:
        query = query.where(File.purpose == purpose)
    return nearest_first(query, File.created_at, File.id, after=after, before=before, limit=limit)


def take_concept_upload(file_id: str) -> ReturningUpdate[File]:
    """Make an uploaded concept file one that a concept is made of; no row comes back for any other file."""
    return (
        update(File)
        .where(File.id == file_id, File.purpose == "concept_upload")
        .values(purpose="concept")
        .returning(File)
        .execution_options(populate_existing=True)
    )


def delete_file(file_id: str) -> Delete:
    """Remove the row of a file, unless a concept is made of it by now."""
    return delete(File).where(File.id == file_id, File.purpose != "concept")
