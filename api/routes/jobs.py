"""`/v1/jobs`: jobs of every kind, their attempts and what happens to them."""

from __future__ import annotations

from functools import partial
from typing import Annotated

from fastapi import APIRouter, Header, Query, Request, Response
from sqlalchemy.ext.asyncio import AsyncSession

from api import streaming
from api.dependencies import AnyCaller, Reader, Server, TenantSession, TenantTransactions
from api.idempotency import NewJob
from api.jobs import StateFilter, list_jobs, read_job, show
from api.pagination import WantedPage
from api.schemas.bulk import BulkResult, CancelJobs, RetryJob, RetryJobs
from api.schemas.common import ListOf
from api.schemas.jobs import Attempt, Job, JobWithAttempts, shown, with_attempts
from api.schemas.why import Why
from api.standing import standing_of
from api.waiting import Wait
from core.catalog.selection import get_model
from core.control import verbs
from core.control.bulk import Chosen, cancel_many, retry_many
from core.events.feed import follow_job
from core.jobs import models
from core.jobs.outlook import outlook
from core.jobs.reading import get_attempts, get_job
from core.jobs.retrying import retry
from core.jobs.states import JobKind, JobState
from core.scheduling.fairshare import Priority
from core.tenants.authentication import Caller

router = APIRouter(prefix="/v1/jobs", tags=["Jobs"])

_NOTHING = RetryJob()

_SCOPES = {
    JobKind.TRAINING: "train",
    JobKind.DISTILLATION: "distill",
    JobKind.TEACHER_PAIRS: "distill",
    JobKind.GENERATION: "generate",
}


@router.get("")
async def list_all_jobs(
    _: Reader,
    session: TenantSession,
    page: WantedPage,
    server: Server,
    *,
    kind: Annotated[JobKind | None, Query(description="Only jobs of this kind.")] = None,
    parent: Annotated[str | None, Query(description="Only jobs that were made for this one.")] = None,
    state: StateFilter = None,
) -> ListOf[Job]:
    """List jobs of every kind, newest first."""
    return await list_jobs(session, page, shown, server.urls, kind=kind, state=state, parent_id=parent)


@router.get("/{job_id}")
async def get_any_job(
    job_id: str, _: Reader, transactions: TenantTransactions, server: Server, wait: Wait, response: Response
) -> JobWithAttempts:
    """Get a job and the attempts at it; with `Prefer: wait=N` once it has ended."""
    job = await read_job(transactions, job_id, kind=None, wait=wait, response=response)
    async with transactions() as session:
        attempts = [Attempt.of(attempt) for attempt in await get_attempts(session, job_id)]
        return with_attempts(await show(session, job, shown, server.urls), attempts)


@router.get("/{job_id}/why")
async def explain_job(job_id: str, _: Reader, session: TenantSession) -> Why:
    """Say why a job waits, what would let it start, and when it may."""
    return Why.of(await outlook(session, await get_job(session, job_id)))


@router.post("/{job_id}/cancel")
async def cancel_any_job(job_id: str, caller: AnyCaller, session: TenantSession, server: Server) -> Job:
    """Cancel a job. One that waits ends at once; one that runs is asked to stop, and ends shortly after."""
    job = await get_job(session, job_id)
    caller.require(_SCOPES[JobKind(job.kind)])
    return await show(session, await verbs.cancel(session, job_id), shown, server.urls)


@router.post("/{job_id}/retry", status_code=201, response_model=Job)
async def retry_any_job(
    job_id: str, caller: AnyCaller, server: Server, new_job: NewJob, body: RetryJob = _NOTHING
) -> Response:
    """Try a job again that failed, was canceled or expired: a new job with its parameters, which names it."""

    async def accept(session: AsyncSession) -> models.Job:
        caller.require(_SCOPES[JobKind((await get_job(session, job_id)).kind)])
        limits = server.queue.of(caller.key_id, Priority.NORMAL, new_job.cancel_after)
        return await retry(session, caller.tenant_id, job_id, limits=limits)

    return await new_job.answer(body, accept)


@router.post("/cancel")
async def cancel_many_jobs(body: CancelJobs, caller: AnyCaller, session: TenantSession) -> BulkResult:
    """Cancel the oldest jobs of a filter, and those made for them, of the kinds that the key may submit."""
    chosen = await _chosen(session, caller, body)
    dealt = await cancel_many(session, chosen, limit=body.limit, dry_run=body.dry_run)
    return BulkResult.of(dealt, dry_run=body.dry_run)


@router.post("/retry")
async def retry_many_jobs(body: RetryJobs, caller: AnyCaller, session: TenantSession, server: Server) -> BulkResult:
    """Try the oldest jobs of a filter again, each as a new job; what was tried again once is left out."""
    chosen = await _chosen(session, caller, body)
    limits = server.queue.of(caller.key_id, Priority.NORMAL)
    again = partial(retry_many, session, caller.tenant_id, chosen, limits=limits)
    return BulkResult.of(await again(limit=body.limit, dry_run=body.dry_run), dry_run=body.dry_run)


async def _chosen(session: AsyncSession, caller: Caller, body: CancelJobs | RetryJobs) -> Chosen:
    if body.kind is not None:
        caller.require(_SCOPES[body.kind])
    allowed = frozenset(kind for kind, scope in _SCOPES.items() if caller.may(scope))
    return Chosen(
        kinds=allowed if body.kind is None else frozenset({body.kind}),
        state=None if body.state is None else JobState(body.state),
        model_id=None if body.model is None else (await get_model(session, body.model)).id,
        created_after=body.created_after,
        created_before=body.created_before,
    )


@router.get(
    "/{job_id}/events",
    response_class=Response,
    responses={200: {"description": "Events, each with its sequence as `id`.", "content": {"text/event-stream": {}}}},
)
async def stream_job_events(
    request: Request,
    job_id: str,
    _: Reader,
    transactions: TenantTransactions,
    last_event_id: Annotated[str | None, Header(alias="Last-Event-ID", description="Go on after this event.")] = None,
) -> Response:
    """Stream what happens to a job, from its beginning to its end, as server-sent events.

    Each event has the body that webhooks have. After a break go on with `Last-Event-ID`; nothing is lost.
    """
    async with transactions() as session:
        await get_job(session, job_id)
    after = streaming.sequence_after(last_event_id, job_id)
    looks = follow_job(transactions, job_id, after_sequence=after, longest_rest=streaming.LONGEST_REST)
    return streaming.stream(looks, standing_of(request))
