"""`/studio/concepts`: what was learned, and pictures to learn something new from."""

from __future__ import annotations

from typing import Final

from fastapi import APIRouter, Request, Response
from fastapi.responses import HTMLResponse

from api.dependencies import Reader, Server, TenantSession, Trainer, draw_seed
from api.pages import forms
from api.pages.following import go_to, studio_page
from api.pagination import WantedPage
from core.catalog.selection import base_models, facts_of
from core.concepts import registry
from core.files import statements as files
from core.jobs.acceptance import accept_training
from core.studio import showcase

router = APIRouter(prefix="/studio", include_in_schema=False)

_ROWS: Final = 24


@router.get("/concepts")
async def show_concepts(request: Request, caller: Reader, session: TenantSession, wanted: WantedPage) -> HTMLResponse:
    """Show concepts, newest first."""
    found = await showcase.cards(session, after=wanted.after, before=wanted.before, limit=_ROWS)
    return studio_page(request, caller, "concepts.html", found=found)


@router.get("/concepts/new")
async def show_new_concept(request: Request, caller: Trainer, session: TenantSession, server: Server) -> HTMLResponse:
    """Ask for pictures of a thing, and what it is; the address may hold what was said already."""
    asked = request.query_params
    most = server.settings.max_training_pictures
    present = {file.id: file for file in await session.scalars(files.files_by_ids(asked.getlist("images")[:most]))}
    bases = await base_models(session)
    return studio_page(
        request,
        caller,
        "new_concept.html",
        asked=asked,
        images=[present[file_id] for file_id in asked.getlist("images") if file_id in present],
        bases=bases,
        words=sorted({word for base in bases for word in facts_of(base).superclasses}),
        most=most,
    )


@router.post("/trainings")
async def start_training(request: Request, caller: Trainer, session: TenantSession, server: Server) -> Response:
    """Start learning, and go on to where it can be watched."""
    body = forms.as_training(await request.form())
    job = await accept_training(
        session,
        caller.tenant_id,
        body.as_request(),
        limits=body.limits(server.queue, caller.key_id, None),
        max_pictures=server.settings.max_training_pictures,
        draw_seed=draw_seed,
    )
    return go_to(request, f"/studio/trainings/{job.id}")


@router.get("/concepts/{name_or_id}")
async def show_concept(request: Request, name_or_id: str, caller: Reader, session: TenantSession) -> HTMLResponse:
    """Show a concept and its versions."""
    concept = await registry.get(session, name_or_id)
    (card,) = await showcase.cards_of(session, [concept])
    versions = await registry.versions(session, concept.id)
    return studio_page(request, caller, "concept.html", card=card, concept=concept, versions=versions)


@router.post("/concepts/{name_or_id}/delete")
async def delete_concept(request: Request, name_or_id: str, _: Trainer, session: TenantSession) -> Response:
    """Delete a concept and free its name."""
    await registry.delete(session, name_or_id)
    return go_to(request, "/studio/concepts")
