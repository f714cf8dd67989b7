"""`/studio/jobs` and `/studio/trainings/{id}`: jobs as they go on, and what a customer does about them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, Literal

from fastapi import APIRouter, Request, Response
from fastapi.responses import HTMLResponse, StreamingResponse

from api.dependencies import AnyCaller, Reader, Server, TenantSession, TenantTransactions
from api.jobs import JobVerb
from api.pages.following import follow, generation_values, go_to, named_generation, studio_page, training_values
from api.pages.operations import done
from core.control import verbs
from core.db.transactions import Transactions
from core.jobs.models import Job
from core.jobs.reading import get_job
from core.jobs.retrying import retry
from core.jobs.states import JobKind

router = APIRouter(prefix="/studio", include_in_schema=False)

_SCOPES: Final[Mapping[str, str]] = {JobKind.TRAINING: "train", JobKind.GENERATION: "generate"}
_VERBS: Final[Mapping[str, tuple[JobVerb, str]]] = {
    "cancel": (verbs.cancel, "It is canceled, or asked to stop."),
    "pause": (verbs.pause, "It is paused, or asked to stop with a checkpoint."),
    "resume": (verbs.resume, "It goes on."),
}


def _page_of(job: Job) -> str:
    return f"/studio/{'trainings' if job.kind == JobKind.TRAINING else 'jobs'}/{job.id}"


@router.get("/jobs/{job_id}")
async def show_generation(request: Request, job_id: str, caller: Reader, session: TenantSession) -> HTMLResponse:
    """Show a generation, beside the one that it draws again."""
    values = await generation_values(session, job_id)
    original = await named_generation(session, values["params"].reproduces)
    return studio_page(request, caller, "job.html", original=original, **values)


@router.get("/trainings/{job_id}")
async def show_training(request: Request, job_id: str, caller: Reader, session: TenantSession) -> HTMLResponse:
    """Show a training with its curve."""
    return studio_page(request, caller, "training.html", **await training_values(session, job_id))


@router.get("/live/jobs/{job_id}")
async def follow_generation(
    request: Request, job_id: str, caller: Reader, transactions: TenantTransactions
) -> StreamingResponse:
    """Follow a generation until it has ended."""
    await _must_be(transactions, job_id, JobKind.GENERATION)
    return follow(request, caller, transactions, job_id, "_job.html")


@router.get("/live/drafts/{job_id}")
async def follow_draft(
    request: Request, job_id: str, caller: Reader, transactions: TenantTransactions
) -> StreamingResponse:
    """Follow a draft until it has ended."""
    await _must_be(transactions, job_id, JobKind.GENERATION)
    return follow(request, caller, transactions, job_id, "_draft.html")


@router.get("/live/trainings/{job_id}")
async def follow_training(
    request: Request, job_id: str, caller: Reader, transactions: TenantTransactions
) -> StreamingResponse:
    """Follow a training until it has ended."""
    await _must_be(transactions, job_id, JobKind.TRAINING)
    return follow(request, caller, transactions, job_id, "_training.html")


async def _must_be(transactions: Transactions, job_id: str, kind: JobKind) -> None:
    """Raise NotFound before an answer has begun."""
    async with transactions() as session:
        await get_job(session, job_id, kind=kind)


@router.post("/jobs/{job_id}/retry")
async def retry_job(
    request: Request, job_id: str, caller: AnyCaller, session: TenantSession, server: Server
) -> Response:
    """Try a job again that did not succeed, and go on to the new one."""
    caller.require(_SCOPES.get((await get_job(session, job_id)).kind, "distill"))
    job = await retry(session, caller.tenant_id, job_id, limits=server.queue.of(caller.key_id))
    return go_to(request, _page_of(job))


@router.post("/jobs/{job_id}/{verb}")
async def act_on_job(
    request: Request,
    job_id: str,
    verb: Literal["cancel", "pause", "resume"],
    caller: AnyCaller,
    session: TenantSession,
) -> Response:
    """Cancel, pause or resume a job."""
    job = await get_job(session, job_id)
    caller.require(_SCOPES.get(job.kind, "distill"))
    act, told = _VERBS[verb]
    await act(session, job_id)
    return done(request, told, _page_of(job))
