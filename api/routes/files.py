"""`/v1/files`: pictures and concept files that customers upload, and what jobs produce."""

from __future__ import annotations

from datetime import timedelta
from functools import partial
from typing import Annotated

from fastapi import APIRouter, Form, Query, Request, Response, UploadFile
from sqlalchemy.ext.asyncio import AsyncSession

from api import content
from api.dependencies import Reader, Server, TenantSession, TenantTransactions, Trainer
from api.idempotency import New
from api.pagination import WantedPage, list_of
from api.schemas.common import FilePurpose, ListOf, UploadPurpose
from api.schemas.files import File, SignedUrl, SignUrl
from api.signed import ReadableFile, permit, reading
from api.uploads import SentFile, check_size, understood
from core.db.paging import read_page
from core.files import library, statements
from core.idempotency.replies import Reply

router = APIRouter(prefix="/v1/files", tags=["Files"])


@router.post("", status_code=201, response_model=File)
async def create_file(
    file: UploadFile,
    caller: Trainer,
    server: Server,
    new: New,
    purpose: Annotated[UploadPurpose, Form(description="What the file is for.")] = "picture",
) -> Response:
    """Upload a picture (PNG, JPEG, WebP, or a GIF's first frame), or a concept file to import.

    A picture is recognised by its content, turned upright, freed of metadata (such as the place) and stored as PNG. A
    concept file is checked by its header and stored as it is.
    """
    data = await file.read()
    check_size(server, len(data), param="file")
    sent = await SentFile.of(file.filename or "", purpose, data)
    if (earlier := await new.repeated(sent)) is not None:
        return earlier
    upload = await understood(server, purpose, data)
    async with library.placed(server.store, caller.tenant_id, upload) as placed:

        async def make(session: AsyncSession) -> Reply:
            kept = await library.record(
                session, placed, name=sent.name, max_stored_bytes=server.settings.tenant_max_bytes or None
            )
            body = File.of(kept, server.urls).model_dump(mode="json")
            return Reply(201, body, location=server.urls.file(kept.id))

        return await new.answer(sent, make)


@router.get("")
async def list_files(
    _: Reader,
    session: TenantSession,
    page: WantedPage,
    server: Server,
    purpose: Annotated[FilePurpose | None, Query(description="Only these.")] = None,
) -> ListOf[File]:
    """List files, newest first."""
    rows = partial(statements.files_page, purpose=purpose)
    found = await read_page(
        session, rows, by_id=statements.file_by_id, after=page.after, before=page.before, limit=page.limit
    )
    return list_of(found, lambda file: File.of(file, server.urls))


@router.get("/{file_id}")
async def get_file(file_id: str, _: Reader, session: TenantSession, server: Server) -> File:
    """Get what is known of a file."""
    return File.of(await library.get(session, file_id), server.urls)


@router.get(
    "/{file_id}/content",
    response_class=Response,
    responses={200: {"description": "The bytes.", "content": {"*/*": {}}}, **content.RESPONSES},
)
async def get_file_content(file_id: str, request: Request, transactions: ReadableFile, server: Server) -> Response:
    """Download a file's bytes, whole or one `Range`; `If-None-Match` with the `ETag` saves the transfer.

    Where the address is signed (`sig`), no key is needed, and one that is sent along is not looked at.
    """
    async with transactions() as session:
        file = await library.get(session, file_id)
    return await content.serve(request, file, server.store)


@router.post("/{file_id}/url")
async def sign_file_url(
    file_id: str, caller: Reader, session: TenantSession, server: Server, body: SignUrl | None = None
) -> SignedUrl:
    """Get an address of a file's bytes that needs no key, for browsers and for people without one, for a while."""
    file = await library.get(session, file_id)
    lasting = await permit(session, caller.tenant_id, timedelta(seconds=(body or SignUrl()).expires_in))
    signature = server.signer.sign(reading(file.id), lasting)
    return SignedUrl(url=server.urls.signed_content(file.id, signature), expires_at=lasting.until)


@router.delete("/{file_id}", status_code=204)
async def delete_file(file_id: str, _: Trainer, transactions: TenantTransactions, server: Server) -> None:
    """Delete a file's bytes for good. A job that still needs it will fail."""
    await library.delete(transactions, server.store, file_id)
