"""`/studio/pictures`: what was drawn, each picture with what it was drawn from, to be drawn again, kept or deleted."""

from __future__ import annotations

from typing import Final
from urllib.parse import urlencode

from fastapi import APIRouter, Request, Response
from fastapi.responses import HTMLResponse

from api.dependencies import Generator, Reader, Server, TenantSession, TenantTransactions, Trainer
from api.pages.following import go_to, studio_page
from api.pages.snippets import as_curl, as_python, request_body
from api.pagination import WantedPage
from core.files import library
from core.jobs.params import GenerationParams
from core.jobs.reproduction import reproduce_file
from core.studio import gallery

router = APIRouter(prefix="/studio/pictures", include_in_schema=False)

_ROWS: Final = 30


@router.get("")
async def show_gallery(request: Request, caller: Reader, session: TenantSession, wanted: WantedPage) -> HTMLResponse:
    """Show pictures, newest first."""
    found = await gallery.pictures(session, after=wanted.after, before=wanted.before, limit=_ROWS)
    return studio_page(request, caller, "pictures.html", found=found)


@router.get("/{file_id}")
async def show_picture(
    request: Request, file_id: str, caller: Reader, session: TenantSession, server: Server
) -> HTMLResponse:
    """Show one picture large, what it was drawn from, and the code that draws it again."""
    picture = await gallery.picture(session, file_id)
    body = request_body(picture.params, picture.model)
    code = {"curl": as_curl(body, server.urls.base), "python": as_python(body, server.urls.base)}
    again = composing(picture.params, picture.model)
    return studio_page(request, caller, "picture.html", picture=picture, params=picture.params, code=code, again=again)


def composing(params: GenerationParams, model: str) -> str:
    """The address of the form, filled in with what a picture was drawn from."""
    fields = {"prompt": params.prompt, "model": model, "seed": params.seed, "negative_prompt": params.negative_prompt}
    dials = {f"bias.{use.name}": use.gate_bias for use in params.concepts}
    locks = {f"lock.{use.name}": use.key_lock for use in params.concepts}
    return f"/studio?{urlencode({name: value for name, value in (fields | dials | locks).items() if value != ''})}"


@router.post("/{file_id}/reproduce")
async def reproduce_picture(
    request: Request, file_id: str, caller: Generator, session: TenantSession, server: Server
) -> Response:
    """Draw a picture again, and go on to where it comes."""
    job = await reproduce_file(session, caller.tenant_id, file_id, limits=server.queue.of(caller.key_id))
    return go_to(request, f"/studio/jobs/{job.id}")


@router.post("/{file_id}/delete")
async def delete_picture(
    request: Request, file_id: str, _: Trainer, transactions: TenantTransactions, server: Server
) -> Response:
    """Delete a picture for good."""
    async with transactions() as session:
        await gallery.picture(session, file_id)
    await library.delete(transactions, server.store, file_id)
    return go_to(request, "/studio/pictures")
