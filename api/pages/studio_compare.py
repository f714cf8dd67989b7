"""`/studio/compare`: one prompt and seed by each key lock, or by a teacher and its students, side by side."""

from __future__ import annotations

from dataclasses import replace
from typing import Final

from fastapi import APIRouter, Request, Response
from fastapi.responses import HTMLResponse

from api.dependencies import Generator, Reader, Server, TenantSession, draw_seed
from api.pages import forms
from api.pages.following import generation_values, go_to, named_generation, studio_page, studio_part
from core.jobs.acceptance import accept_generation
from core.studio import showcase
from core.studio.comparing import MOST, By, variants
from core.studio.naming import with_granted

router = APIRouter(prefix="/studio", include_in_schema=False)

_OFFERED: Final = 24
_WAYS: Final = {"model": "Teacher and student", "lock": "Key locks"}


@router.get("/compare")
async def show_comparison(request: Request, caller: Reader, session: TenantSession) -> HTMLResponse:
    """Show the form as the address fills it in, and the comparison that it names."""
    asked = request.query_params
    drawn = [await named_generation(session, job_id) for job_id in asked.getlist("job")[:MOST]]
    return studio_page(
        request,
        caller,
        "compare.html",
        asked=asked,
        ways=_WAYS,
        seed=asked.get("seed") or draw_seed(),
        offered=await showcase.offered(session, limit=_OFFERED),
        drawn=[values for values in drawn if values is not None],
    )


@router.post("/comparisons")
async def compare(request: Request, caller: Generator, session: TenantSession, server: Server) -> Response:
    """Draw each variant, all or none."""
    form = await request.form()
    body = forms.as_generation(form, n=1)
    by: By = "lock" if form.get("by") == "lock" else "model"
    limits = body.limits(server.queue, caller.key_id, None)
    drawn = []
    seed = body.seed if body.seed is not None else draw_seed()
    asked = await with_granted(session, replace(body.as_request(), seed=seed))
    for variant in await variants(session, asked, by):
        job = await accept_generation(session, caller.tenant_id, variant, limits=limits, draw_seed=draw_seed)
        drawn.append(await generation_values(session, job.id))
    if "hx-request" not in request.headers:
        return go_to(request, "/studio/compare?" + "&".join(f"job={values['job'].id}" for values in drawn))
    return studio_part(request, caller, "_compared.html", drawn=drawn)
