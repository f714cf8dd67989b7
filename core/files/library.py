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
    """An upload whose bytes are stored; a row tells of them once it is recorded."""

    file_id: str
    tenant_id: str
    upload: Upload
    stored: StoredObject
    is_recorded: bool = False


@asynccontextmanager
async def placed(store: ObjectStore, tenant_id: str, upload: Upload) -> AsyncIterator[Placed]:
    """Store an upload, and ``record`` it in the block; raises StorageUnavailable.

    After an error, or where it was not recorded, the object is gone again. It stays where the row may: after
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
    if not made.is_recorded:
        await _drop(store, stored.key)


async def _drop(store: ObjectStore, key: str) -> None:
    with contextlib.suppress(StorageUnavailable):  # then it is an orphan, and the sweeper's
        await asyncio.to_thread(store.delete, key)


async def record(session: AsyncSession, placed: Placed, *, name: str, max_stored_bytes: int | None) -> File:
    """Write the row of an upload that was stored; raises StorageFull."""
    file = File(
        id=placed.file_id,
        tenant_id=placed.tenant_id,
        purpose=placed.upload.purpose,
        name=plain_name(name),
        key=placed.stored.key,
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
    placed.is_recorded = True
    return file


async def get(session: AsyncSession, file_id: str, *, param: str = "id") -> File:
    """What is known of a file; raises NotFound."""
    file = await session.scalar(statements.file_by_id(file_id))
    if file is None:
        raise NotFound(f"No file {file_id}.", param=param)
    return file


async def delete(transactions: Transactions, store: ObjectStore, file_id: str) -> None:
    """Remove a file's bytes, then its row: what was reported deleted is gone.

    Raises NotFound, Conflict for a file that a concept or a model is made of, and StorageUnavailable,
    after which the file may be deleted again.
    """
    async with transactions() as session:
        file = await get(session, file_id)
    if file.purpose == "concept":
        raise Conflict("This file is a version of a concept: delete the concept instead.", param="id")
    if file.purpose == "student":
        raise Conflict("This file is a student's: models draw with it.", param="id")
    await asyncio.to_thread(store.delete, file.key)
    async with transactions() as session:
        await session.execute(statements.delete_file(file_id))


def plain_name(name: str) -> str:
    """The last part of a path, without control characters; never empty."""
    last = re.split(r"[/\\]", name)[-1]
    return "".join(character for character in last if character.isprintable())[:_LONGEST_NAME].strip() or "unnamed"
