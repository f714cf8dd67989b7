"""What the studio's pages have in common: who looks at them, and jobs that are followed on them."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from datetime import timedelta
from functools import partial
from typing import Any, Final

from fastapi import Request, Response
from fastapi.responses import HTMLResponse, RedirectResponse, StreamingResponse
from sqlalchemy.ext.asyncio import AsyncSession

from api.pages.live import live
from api.pages.rendering import page, rendered
from core.catalog.selection import names
from core.db.transactions import Transactions
from core.errors import NotFound
from core.jobs.models import Job
from core.jobs.outlook import Reason, outlook
from core.jobs.params import GenerationParams, TrainingParams
from core.jobs.pauses import growing
from core.jobs.reading import get_job
from core.jobs.retrying import RETRYABLE
from core.jobs.states import JobKind, JobState
from core.tenants.authentication import Caller

_LONGEST_REST: Final = timedelta(milliseconds=300)

Values = dict[str, Any]


def studio_page(request: Request, caller: Caller, template: str, **values: Any) -> HTMLResponse:
    """Answer with a page of the studio, as the caller may use it."""
    return page(request, f"studio/{template}", **rights(caller), **values)


def studio_part(request: Request, caller: Caller, template: str, **values: Any) -> HTMLResponse:
    """The same, of a part of a page."""
    return HTMLResponse(rendered(request, f"studio/{template}", **rights(caller), **values))


def rights(caller: Caller) -> Values:
    """What the caller may do, for templates."""
    return {
        "may_generate": caller.may("generate"),
        "may_train": caller.may("train"),
        "is_operator": caller.is_operator and caller.may("admin"),
    }


def go_to(request: Request, path: str) -> Response:
    """Answer an act by going on to a page."""
    if "hx-request" in request.headers:
        return Response(headers={"HX-Redirect": path})
    return RedirectResponse(path, status_code=303)


async def generation_values(session: AsyncSession, job_id: str) -> Values:
    """What is shown of a generation; raises NotFound."""
    job = await get_job(session, job_id, kind=JobKind.GENERATION)
    params = GenerationParams.model_validate(job.params)
    return {**await _standing(session, job), "params": params, "images": (job.result or {}).get("images", [])}


async def named_generation(session: AsyncSession, job_id: str | None) -> Values | None:
    """What is shown of a generation that an address names, if it is still there."""
    if not job_id:
        return None
    with contextlib.suppress(NotFound):
        return await generation_values(session, job_id)
    return None


async def training_values(session: AsyncSession, job_id: str) -> Values:
    """What is shown of a training; raises NotFound."""
    job = await get_job(session, job_id, kind=JobKind.TRAINING)
    return {**await _standing(session, job), "params": TrainingParams.model_validate(job.params)}


async def _standing(session: AsyncSession, job: Job) -> Values:
    is_queued = job.state == JobState.QUEUED
    told = await outlook(session, job) if is_queued else None
    return {
        "job": job,
        "model": (await names(session, [job.model_id]))[job.model_id],
        "outlook": told,
        "is_paused": told is not None and told.reason is Reason.PAUSED,
        "is_over": JobState(job.state).is_terminal,
        "is_retryable": job.state in RETRYABLE,
    }


_PARTS: Final[Mapping[str, Any]] = {
    "_job.html": generation_values,
    "_draft.html": generation_values,
    "_training.html": training_values,
}


def follow(
    request: Request, caller: Caller, transactions: Transactions, job_id: str, template: str
) -> StreamingResponse:
    """Stream what a job comes to, until it has ended."""
    reading = partial(_PARTS[template], job_id=job_id)

    async def read() -> Values:
        async with transactions() as session:
            return {**rights(caller), **await reading(session), "is_live": True}

    return live(request, f"studio/{template}", read, rests=growing(_LONGEST_REST))
