"""A tenant's files: taken in, looked up, thrown away. What certainly failed leaves nothing behind."""

from __future__ import annotations

import asyncio
import contextlib
import re

from sqlalchemy.ext.asyncio import AsyncSession

from core.db.transactions import OutcomeUnknown, Transactions
from core.errors import Conflict, NotFound, StorageUnavailable
from core.files import pictures, statements
from core.files.models import File
from core.files.pictures import Picture
from core.ids import new_id
from core.storage import keys
from core.storage.s3 import ObjectStore, StoredObject

_LONGEST_NAME = 255


async def keep_picture(
    transactions: Transactions, store: ObjectStore, *, tenant_id: str, name: str, picture: Picture
) -> File:
    """Store an uploaded picture; raises StorageUnavailable, and then neither an object nor a row exists.

    The object stays where the row may: after OutcomeUnknown, or a cancellation at whatever moment.
    """
    file_id = new_id("file")
    stored = await asyncio.to_thread(
        store.put, keys.upload(tenant_id, file_id), picture.png, media_type=pictures.MEDIA_TYPE
    )
    try:
        return await _record(
            transactions, stored, file_id=file_id, tenant_id=tenant_id, name=plain_name(name), picture=picture
        )
    except OutcomeUnknown:
        raise
    except Exception:
        with contextlib.suppress(StorageUnavailable):
            await asyncio.to_thread(store.delete, stored.key)
        raise


async def _record(
    transactions: Transactions, stored: StoredObject, *, file_id: str, tenant_id: str, name: str, picture: Picture
) -> File:
    async with transactions() as session:
        file = File(
            id=file_id,
            tenant_id=tenant_id,
            purpose="picture",
            name=name,
            key=stored.key,
            media_type=pictures.MEDIA_TYPE,
            size_bytes=stored.size_bytes,
            sha256=stored.sha256,
            width=picture.width,
            height=picture.height,
        )
        session.add(file)
        await session.flush()
        await session.refresh(file)
    return file


async def get(session: AsyncSession, file_id: str) -> File:
    """What is known of a file; raises NotFound."""
    file = await session.scalar(statements.file_by_id(file_id))
    if file is None:
        raise NotFound(f"No file {file_id}.", param="id")
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
