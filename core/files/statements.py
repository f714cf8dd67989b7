"""SQL of files."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime, timedelta

from sqlalchemy import ColumnElement, Delete, Select, Update, delete, func, select, text, update
from sqlalchemy.sql.dml import ReturningDelete, ReturningUpdate

from core.db.paging import Place, nearest_first
from core.db.time import lockstep_now
from core.files.models import File, PresignedUpload


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


# Held until commit, by whoever lets pictures of these bytes share an object or takes one away from them.
LOCK_PICTURES = text("SELECT pg_advisory_xact_lock(hashtextextended('lockstep.picture ' || :tenant_id || :sha256, 0))")


def key_of_picture(tenant_id: str, sha256: str) -> Select[str]:
    """Where the bytes of such a picture lie already, if they are there to stay."""
    same = File.tenant_id == tenant_id, File.sha256 == sha256, File.purpose == "picture", File.deleting.is_(False)
    return select(File.key).where(*same).limit(1)


def others_at(key: str, file_id: str) -> Select[str]:
    """Another file on the same object."""
    return select(File.id).where(File.key == key, File.id != file_id).limit(1)


def mark_deleting(file_id: str) -> Update:
    """Let no other file share the object any more."""
    return update(File).where(File.id == file_id).values(deleting=True)


def delete_file(file_id: str) -> Delete:
    """Remove the row of a file, unless a concept is made of it by now."""
    return delete(File).where(File.id == file_id, File.purpose != "concept")


# --- announced uploads --------------------------------------------------------------------------------------------

OPEN_UPLOADS = text("""
    SELECT count(*) AS number, coalesce(sum(size_bytes), 0)::bigint AS size_bytes FROM uploads
    WHERE tenant_id = :tenant_id AND file_id IS NULL AND expires_at > lockstep_now()
""")


def after(lifetime: timedelta) -> ColumnElement[datetime]:
    """So long from now, in whole seconds."""
    return func.date_trunc("second", lockstep_now() + lifetime)


def upload_by_id(upload_id: str) -> Select[PresignedUpload]:
    """One upload that has not expired, as the session's tenant sees it."""
    return select(PresignedUpload).where(PresignedUpload.id == upload_id, PresignedUpload.expires_at > lockstep_now())


def lock_upload(upload_id: str) -> Select[PresignedUpload]:
    """The same, as it stands once nobody else completes it."""
    return upload_by_id(upload_id).with_for_update()


def remove_upload(upload_id: str) -> ReturningDelete[PresignedUpload]:
    """Remove the row of an upload."""
    return delete(PresignedUpload).where(PresignedUpload.id == upload_id).returning(PresignedUpload)
