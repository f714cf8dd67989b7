"""`/studio`: composing a prompt of several concepts, with a picture that is redrawn as their dials are turned."""

from __future__ import annotations

import asyncio
import contextlib
from typing import Any, Final

from fastapi import APIRouter, Request, Response
from fastapi.responses import HTMLResponse
from sqlalchemy.ext.asyncio import AsyncSession

from api.dependencies import Generator, Reader, Resources, Server, TenantSession, TenantTransactions, draw_seed
from api.pages import forms
from api.pages.following import generation_values, go_to, named_generation, studio_page, studio_part
from api.pages.forms import Fields
from core.catalog.selection import all_models, facts_of
from core.db.transactions import Transactions
from core.errors import NotFound, StorageUnavailable
from core.files import library
from core.jobs.acceptance import accept_generation
from core.jobs.requests import placeholders
from core.studio import gallery, showcase
from core.studio.drafts import accept_draft
from core.studio.naming import concepts_called, with_granted

router = APIRouter(prefix="/studio", include_in_schema=False)

_RECENT: Final = 12
_OFFERED: Final = 24  # concepts beside the prompt; any other can be named all the same

Values = dict[str, Any]


@router.get("")
async def show_composer(request: Request, caller: Reader, session: TenantSession) -> HTMLResponse:
    """Show the form as the address fills it in, what was drawn last, and the latest pictures."""
    asked = request.query_params
    recent = await gallery.pictures(session, after=None, before=None, limit=_RECENT)
    return studio_page(
        request,
        caller,
        "compose.html",
        asked=asked,
        seed=asked.get("seed") or draw_seed(),
        offered=await showcase.offered(session, limit=_OFFERED),
        recent=recent.rows,
        models=[model for model in await all_models(session) if model.is_ready],
        drawn=await named_generation(session, asked.get("job")),
        draft=await named_generation(session, asked.get("draft")),
        **await _dials(session, asked),
    )


@router.get("/dials")
async def show_dials(request: Request, caller: Reader, session: TenantSession) -> HTMLResponse:
    """Show the dials of the concepts that a prompt names."""
    return studio_part(request, caller, "_dials.html", **await _dials(session, request.query_params))


async def _dials(session: AsyncSession, asked: Fields) -> Values:
    """Each concept that the prompt names, with its dials as they stand: as asked for, or as they are by default."""
    named = placeholders(str(asked.get("prompt") or ""))
    called = await concepts_called(session, named)
    concepts = [called[name] for name in named if name in called]
    facts = {model.id: facts_of(model) for model in await all_models(session)} if concepts else {}
    dials: list[Values] = []
    ready: set[str] = set()
    for card in await showcase.cards_of(session, concepts):
        if card.version is None:
            continue
        turned = forms.dials_of(asked, card.concept.name)
        lock = turned.get("key_lock") or card.version.key_lock
        own = card.version.gate_bias if lock == card.version.key_lock else None
        bias = turned.get("gate_bias") or own or facts[card.concept.model_id].gate_bias.get(lock, 0.5)
        ready.add(card.concept.name)
        dials.append({"card": card, "lock": lock, "locks": locks_of(card.version.key_lock), "bias": bias})
    return {"dials": dials, "unknown": [name for name in named if name not in ready]}


def locks_of(trained: str) -> list[str]:
    """The key locks that a version can be drawn with."""
    return ["global", "local", *(["trained"] if trained == "trained" else [])]


@router.post("/drafts")
async def draw_draft(
    request: Request, caller: Generator, transactions: TenantTransactions, server: Server
) -> HTMLResponse:
    """Draw one picture in one step, in place of the draft before it, which is canceled or thrown away."""
    form = await request.form()
    body = forms.as_generation(form, n=1)
    async with transactions() as session:
        draft = await accept_draft(
            session,
            caller.tenant_id,
            await with_granted(session, body.as_request()),
            replaces=str(form.get("draft") or "") or None,
            limits=server.queue.of(caller.key_id),
            draw_seed=draw_seed,
        )
    await asyncio.shield(_throw_away(transactions, server, draft.outdated))
    async with transactions() as session:
        return studio_part(
            request, caller, "_followed_draft.html", **await generation_values(session, draft.job.id), is_live=False
        )


async def _throw_away(transactions: Transactions, server: Resources, file_ids: tuple[str, ...]) -> None:
    for file_id in file_ids:
        with contextlib.suppress(NotFound, StorageUnavailable):  # then retention takes it
            await library.delete(transactions, server.store, file_id)


@router.post("/generations")
async def draw_pictures(request: Request, caller: Generator, session: TenantSession, server: Server) -> Response:
    """Draw what the form asks for, and show it on the page as it comes."""
    body = forms.as_generation(await request.form())
    job = await accept_generation(
        session,
        caller.tenant_id,
        await with_granted(session, body.as_request()),
        limits=body.limits(server.queue, caller.key_id, None),
        draw_seed=draw_seed,
    )
    if "hx-request" not in request.headers:
        return go_to(request, f"/studio/jobs/{job.id}")
    return studio_part(request, caller, "_followed.html", field="job", **await generation_values(session, job.id))
