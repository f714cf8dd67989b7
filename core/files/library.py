"""A tenant's files: taken in, looked up, thrown away. What certainly failed leaves nothing behind."""

from __future__ import annotations

import asyncio
import contextlib
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

from sqlalchemy.ext.asyncio import AsyncSession

from core.budgets import budgets
from core.db.transactions import OutcomeUnknown, Transactions
from core.errors import Conflict, NotFound, StorageUnavailable
from core.files import statements
from core.files.models import File
from core.ids import new_id
from core.storage import keys
from core.storage.s3 import ObjectStore, StoredObject

_LONGEST_NAME = 255
_SHARED = "picture"  # the purpose of files that may share an object: nothing else is made of them


@dataclass(frozen=True)
class Upload:
    """What is to be kept of an upload."""

    purpose: str
    data: bytes
    media_type: str
    width: int | None = None
    height: int | None = None
    header: dict[str, Any] | None = None


@dataclass
class Placed:
    """An upload whose bytes are stored. Once it is recorded a row names its object, or one with the same bytes."""

    file_id: str
    tenant_id: str
    upload: Upload
    stored: StoredObject
    is_named: bool = False


@asynccontextmanager
async def placed(store: ObjectStore, tenant_id: str, upload: Upload) -> AsyncIterator[Placed]:
    """Store an upload, and ``record`` it in the block; raises StorageUnavailable.

    After an error, or where no row names it, the object is gone again. It stays where the row may: after
    OutcomeUnknown, or a cancellation at whatever moment.
    """
    file_id = new_id("file")
    stored = await asyncio.to_thread(
        store.put, keys.upload(tenant_id, file_id), upload.data, media_type=upload.media_type
    )
    made = Placed(file_id, tenant_id, upload, stored)
    try:
        yield made
    except OutcomeUnknown:
        raise
    except Exception:
        await _drop(store, stored.key)
        raise
    if not made.is_named:
        await _drop(store, stored.key)


async def _drop(store: ObjectStore, key: str) -> None:
    with contextlib.suppress(StorageUnavailable):  # then it is an orphan, and the sweeper's
        await asyncio.to_thread(store.delete, key)


async def record(session: AsyncSession, placed: Placed, *, name: str, max_stored_bytes: int | None) -> File:
    """Write the row of an upload that was stored; raises StorageFull.

    A picture that the tenant has already lies where that one does, and its own object goes.
    """
    key = placed.stored.key
    if placed.upload.purpose == _SHARED:
        key = await _shared_key(session, placed) or key
    file = File(
        id=placed.file_id,
        tenant_id=placed.tenant_id,
        purpose=placed.upload.purpose,
        name=plain_name(name),
        key=key,
        media_type=placed.upload.media_type,
        size_bytes=placed.stored.size_bytes,
        sha256=placed.stored.sha256,
        width=placed.upload.width,
        height=placed.upload.height,
        header=placed.upload.header,
    )
    session.add(file)
    await session.flush()
    await session.refresh(file)
    if max_stored_bytes is not None:
        await budgets.hold_room(session, placed.tenant_id, max_stored_bytes)
    placed.is_named = key == placed.stored.key
    return file


async def _shared_key(session: AsyncSession, placed: Placed) -> str | None:
    same = {"tenant_id": placed.tenant_id, "sha256": placed.stored.sha256}
    await session.execute(statements.LOCK_PICTURES, same)
    key: str | None = await session.scalar(statements.key_of_picture(**same))
    return key


async def get(session: AsyncSession, file_id: str, *, param: str = "id") -> File:
    """What is known of a file; raises NotFound."""
    file = await session.scalar(statements.file_by_id(file_id))
    if file is None:
        raise NotFound(f"No file {file_id}.", param=param)
    return file


async def delete(transactions: Transactions, store: ObjectStore, file_id: str) -> None:
    """Remove a file's bytes, unless they are another file's too, then its row: what was reported deleted is gone.

    Raises NotFound, Conflict for a file that a concept or a model is made of, and StorageUnavailable,
    after which the file may be deleted again.
    """
    async with transactions() as session:
        file = await get(session, file_id)
    if file.purpose == "concept":
        raise Conflict("This file is a version of a concept: delete the concept instead.", param="id")
    if file.purpose == "student":
        raise Conflict("This file is a student's: models draw with it.", param="id")
    if file.purpose == _SHARED and not await _is_alone(transactions, file):
        return
    await asyncio.to_thread(store.delete, file.key)
    async with transactions() as session:
        await session.execute(statements.delete_file(file_id))


async def _is_alone(transactions: Transactions, file: File) -> bool:
    """Whether the picture's object is to go as well; its row is gone where others need the object."""
    async with transactions() as session:
        await session.execute(statements.LOCK_PICTURES, {"tenant_id": file.tenant_id, "sha256": file.sha256})
        is_alone = await session.scalar(statements.others_at(file.key, file.id)) is None
        await session.execute(statements.mark_deleting(file.id) if is_alone else statements.delete_file(file.id))
    return is_alone


def plain_name(name: str) -> str:
    """The last part of a path, without control characters; never empty."""
    last = re.split(r"[/\\]", name)[-1]
    return "".join(character for character in last if character.isprintable())[:_LONGEST_NAME].strip() or "unnamed"
