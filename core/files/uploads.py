"""Uploads in two steps: announced, sent in parts to addresses that need no key, and completed into a file.

The parts are objects of their own until then, so nothing is a file before its bytes were looked at, and what is never
completed is thrown away by the cleaner, with its row.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta

from sqlalchemy.ext.asyncio import AsyncSession

from core.budgets import budgets
from core.errors import Limit, NotFound, StorageFull, UploadIncomplete, UploadMismatch
from core.files import library, statements
from core.files.library import Placed, plain_name
from core.files.models import File, PresignedUpload
from core.ids import new_id
from core.storage import keys
from core.storage.s3 import ObjectMissing, ObjectStore

LIFETIME = timedelta(hours=6)  # less than what the sweeper leaves alone
PART_BYTES = 8 * 1024 * 1024
MOST_OPEN = 100  # of one tenant


@dataclass(frozen=True)
class Announcement:
    """What somebody is about to upload."""

    purpose: str
    name: str
    size_bytes: int
    sha256: str | None = None


@dataclass(frozen=True)
class Opened:
    """How many uploads are neither completed nor expired, and what they announce in all."""

    number: int
    size_bytes: int


@dataclass(frozen=True)
class Part:
    """A stretch of the bytes, counted from 1, and where it is kept."""

    number: int
    size_bytes: int
    key: str


def parts_of(upload: PresignedUpload) -> Sequence[Part]:
    """The parts that an upload is sent in: all of the same size, but for the last one."""
    starts = range(0, upload.size_bytes, upload.part_bytes)
    return [
        Part(number, min(upload.part_bytes, upload.size_bytes - start), f"{upload.key}{number}")
        for number, start in enumerate(starts, start=1)
    ]


async def opened(session: AsyncSession, tenant_id: str) -> Opened:
    """The tenant's open uploads."""
    row = (await session.execute(statements.OPEN_UPLOADS, {"tenant_id": tenant_id})).one()
    return Opened(**row._mapping)


async def announce(
    session: AsyncSession, tenant_id: str, wanted: Announcement, *, max_stored_bytes: int | None
) -> PresignedUpload:
    """Keep room for an upload. Raises StorageFull; holds the payer's lock until commit."""
    tenant, *_ = await budgets.fold(session, tenant_id)
    others = await opened(session, tenant_id)
    if others.number >= MOST_OPEN:
        detail = f"{others.number} uploads are open: complete or delete some, or wait until they expire."
        raise StorageFull(detail, limit=Limit("uploads.open", MOST_OPEN, 0))
    taken = tenant.stored_bytes + others.size_bytes
    if max_stored_bytes is not None and taken + wanted.size_bytes > max_stored_bytes:
        left = max(0, max_stored_bytes - taken)
        detail = f"Your files and open uploads take {taken} bytes of {max_stored_bytes}. Delete some."
        raise StorageFull(detail, param="size_bytes", limit=Limit("storage.bytes", max_stored_bytes, left))
    upload_id = new_id("upl")
    upload = PresignedUpload(
        id=upload_id,
        tenant_id=tenant_id,
        purpose=wanted.purpose,
        name=plain_name(wanted.name),
        key=keys.of_upload(tenant_id, upload_id),
        size_bytes=wanted.size_bytes,
        part_bytes=PART_BYTES,
        sha256=wanted.sha256,
        expires_at=statements.after(LIFETIME),
    )
    session.add(upload)
    await session.flush()
    await session.refresh(upload)
    return upload


async def get(session: AsyncSession, upload_id: str) -> PresignedUpload:
    """An upload that has not expired; raises NotFound."""
    upload = await session.scalar(statements.upload_by_id(upload_id))
    if upload is None:
        raise _missing(upload_id)
    return upload


def part_of(upload: PresignedUpload, number: int) -> Part:
    """One of its parts; raises NotFound."""
    parts = parts_of(upload)
    if not 1 <= number <= len(parts):
        raise NotFound(f"The upload has {len(parts)} parts, and none of number {number}.", param="part")
    return parts[number - 1]


async def collect(store: ObjectStore, upload: PresignedUpload) -> bytes:
    """All its bytes, as they were announced. Raises UploadIncomplete, UploadMismatch and StorageUnavailable."""
    data = b"".join([await asyncio.to_thread(_read, store, part) for part in parts_of(upload)])
    found = await asyncio.to_thread(lambda: hashlib.sha256(data).hexdigest())
    if upload.sha256 not in {None, found}:
        raise UploadMismatch(f"The bytes have the SHA-256 {found}, not {upload.sha256}.", param="sha256")
    return data


def _read(store: ObjectStore, part: Part) -> bytes:
    try:
        data = b"".join(store.read(part.key, first=0, last=part.size_bytes))  # one more, if there is more
    except ObjectMissing as error:
        raise UploadIncomplete(f"Part {part.number} was not uploaded yet.") from error
    if len(data) != part.size_bytes:
        raise UploadMismatch(f"Part {part.number} does not have {part.size_bytes} bytes.", param="size_bytes")
    return data


async def complete(session: AsyncSession, upload_id: str, placed: Placed, *, max_stored_bytes: int | None) -> File:
    """The file that the upload becomes now, or was made by another request meanwhile. Raises NotFound, StorageFull."""
    upload = await session.scalar(statements.lock_upload(upload_id))
    if upload is None:
        raise _missing(upload_id)
    if upload.file_id is not None:
        return await library.get(session, upload.file_id)
    file = await library.record(session, placed, name=upload.name, max_stored_bytes=max_stored_bytes)
    upload.file_id = file.id
    await session.flush()
    return file


async def remove(session: AsyncSession, upload_id: str) -> PresignedUpload:
    """Forget an upload, but not the file it became; raises NotFound. Its parts go after the commit."""
    removed = await session.scalar(statements.remove_upload(upload_id))
    if removed is None:
        raise _missing(upload_id)
    return removed


async def remove_parts(store: ObjectStore, upload: PresignedUpload) -> None:
    """Remove what was sent; raises StorageUnavailable, and then the sweeper comes to it."""
    await asyncio.to_thread(store.delete_many, [part.key for part in parts_of(upload)])


def _missing(upload_id: str) -> NotFound:
    hours = LIFETIME // timedelta(hours=1)
    return NotFound(f"No upload {upload_id}; what is not completed is kept for {hours} hours.", param="id")
