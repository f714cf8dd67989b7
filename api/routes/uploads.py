"""`/v1/uploads`: files whose bytes are sent to signed addresses, by somebody who needs no key."""

from __future__ import annotations

import contextlib

from fastapi import APIRouter, Query, Request, Response
from fastapi.concurrency import run_in_threadpool
from sqlalchemy.ext.asyncio import AsyncSession

from api.dependencies import Resources, Server, TenantSession, TenantTransactions, Trainer
from api.idempotency import New
from api.schemas.files import File
from api.schemas.uploads import CreateUpload, Upload, UploadPart
from api.signed import Signature, permitted
from api.uploads import check_size, understood
from core.db.statements import NOW
from core.db.transactions import Transactions
from core.errors import SignatureInvalid, StorageUnavailable, UploadCompleted, UploadIncomplete, UploadMismatch
from core.files import library, models, uploads
from core.files.models import PresignedUpload
from core.files.uploads import Part
from core.idempotency.replies import Reply
from core.signatures import Permit

router = APIRouter(prefix="/v1/uploads", tags=["Files"])

_BYTES = {"application/octet-stream": {"schema": {"type": "string", "format": "binary"}}}


@router.post("", status_code=201, response_model=Upload)
async def create_upload(body: CreateUpload, caller: Trainer, server: Server, new: New) -> Response:
    """Announce a file. `PUT` the stretches of its bytes to the addresses of the answer's `parts`, then complete it."""
    check_size(server, body.size_bytes, param="size_bytes")

    async def make(session: AsyncSession) -> Reply:
        upload = await uploads.announce(
            session,
            caller.tenant_id,
            body.as_announcement(),
            max_stored_bytes=server.settings.tenant_max_bytes or None,
        )
        shown = await _show(session, server, upload)
        return Reply(201, shown.model_dump(mode="json"), location=server.urls.upload(upload.id))

    return await new.answer(body, make)


@router.get("/{upload_id}")
async def get_upload(upload_id: str, _: Trainer, session: TenantSession, server: Server) -> Upload:
    """Get an upload, with the addresses of its parts until it is completed."""
    return await _show(session, server, await uploads.get(session, upload_id))


@router.put("/{upload_id}/content", status_code=204, openapi_extra={"requestBody": {"content": _BYTES}})
async def put_upload_part(
    upload_id: str,
    request: Request,
    server: Server,
    part: int = Query(default=1, ge=1, description="Its number."),
    signature: Signature = None,
) -> None:
    """Send a part's bytes. The address, with its signature, is one of the upload's `parts`; no key is needed."""
    if signature is None:
        raise SignatureInvalid("Bytes are sent to the addresses of an upload's parts, which are signed.", param="sig")
    transactions = await permitted(server, _writing(upload_id, part), signature)
    async with transactions() as session:
        upload = await uploads.get(session, upload_id)
    if upload.file_id is not None:
        raise UploadCompleted(f"The upload has become {upload.file_id}.", param="id")
    wanted = uploads.part_of(upload, part)
    _check_length(wanted, request.headers.get("content-length", str(wanted.size_bytes)))
    data = await request.body()
    _check_length(wanted, str(len(data)))
    await run_in_threadpool(server.store.put, wanted.key, data, media_type="application/octet-stream")


@router.post("/{upload_id}/complete", status_code=201)
async def complete_upload(
    upload_id: str, _: Trainer, transactions: TenantTransactions, server: Server, response: Response
) -> File:
    """Make a file of what was sent, which is looked at as `POST /v1/files` does. Repeating it gives the same file."""
    upload, file = await _look(transactions, upload_id)
    if file is None:
        try:
            file = await _make_file(transactions, server, upload)
        except UploadIncomplete:  # unless another request has completed it meanwhile, and its parts are gone
            file = (await _look(transactions, upload_id))[1]
            if file is None:
                raise
    response.headers["Location"] = server.urls.file(file.id)
    return File.of(file, server.urls)


async def _look(transactions: Transactions, upload_id: str) -> tuple[PresignedUpload, models.File | None]:
    async with transactions() as session:
        upload = await uploads.get(session, upload_id)
        return upload, None if upload.file_id is None else await library.get(session, upload.file_id)


async def _make_file(transactions: Transactions, server: Resources, upload: PresignedUpload) -> models.File:
    content = await understood(server, upload.purpose, await uploads.collect(server.store, upload))
    async with library.placed(server.store, upload.tenant_id, content) as placed, transactions() as session:
        file = await uploads.complete(
            session, upload.id, placed, max_stored_bytes=server.settings.tenant_max_bytes or None
        )
    await _forget_parts(server, upload)
    return file


@router.delete("/{upload_id}", status_code=204)
async def delete_upload(upload_id: str, _: Trainer, transactions: TenantTransactions, server: Server) -> None:
    """Forget an upload and the bytes that were sent. A file that it has become stays."""
    async with transactions() as session:
        upload = await uploads.remove(session, upload_id)
    await _forget_parts(server, upload)


async def _forget_parts(server: Resources, upload: PresignedUpload) -> None:
    with contextlib.suppress(StorageUnavailable):  # the maintainer comes to them
        await uploads.remove_parts(server.store, upload)


async def _show(session: AsyncSession, server: Resources, upload: PresignedUpload) -> Upload:
    left = upload.expires_at - (await session.execute(NOW)).scalar_one()

    def shown(part: Part) -> UploadPart:
        if server.public_store is not None:
            url = server.public_store.address_to_put(part.key, size_bytes=part.size_bytes, lifetime=left)
        else:
            permit = Permit(upload.tenant_id, upload.expires_at)
            signature = server.signer.sign(_writing(upload.id, part.number), permit)
            url = server.urls.upload_part(upload.id, part.number, signature)
        return UploadPart(number=part.number, size_bytes=part.size_bytes, url=url)

    return Upload.of(upload, [] if upload.file_id else [shown(part) for part in uploads.parts_of(upload)])


def _writing(upload_id: str, part: int) -> str:
    return f"write {upload_id} {part}"


def _check_length(part: Part, length: str) -> None:
    if length != str(part.size_bytes):
        raise UploadMismatch(f"Part {part.number} has {part.size_bytes} bytes, not {length}.", param="Content-Length")
