"""`/v1/distillations`: jobs that make a student of a base model."""

from __future__ import annotations

from fastapi import APIRouter, Response
from sqlalchemy.ext.asyncio import AsyncSession

from api.dependencies import Distiller, Reader, Server, TenantSession, TenantTransactions, draw_seed
from api.idempotency import NewJob
from api.jobs import StateFilter, act, list_jobs, read_job, show
from api.pagination import WantedPage
from api.schemas.common import ListOf
from api.schemas.distillations import CreateDistillation, DistillationJob
from api.waiting import Wait
from core.control import verbs
from core.jobs.distilling import accept_distillation
from core.jobs.models import Job
from core.jobs.states import JobKind

router = APIRouter(prefix="/v1/distillations", tags=["Distillations"])


@router.post("", status_code=201, response_model=DistillationJob)
async def create_distillation(body: CreateDistillation, caller: Distiller, server: Server, new_job: NewJob) -> Response:
    """Distil a student that draws in one step. Pairs of its teacher are drawn first, by jobs of their own."""

    limits = body.limits(server.queue, caller.key_id, new_job.cancel_after)

    async def accept(session: AsyncSession) -> Job:
        return await accept_distillation(
            session,
            caller.tenant_id,
            body.as_request(),
            limits=limits,
            draw_seed=draw_seed,
        )

    return await new_job.answer(body, accept)


@router.get("")
async def list_distillations(
    _: Reader, session: TenantSession, page: WantedPage, server: Server, state: StateFilter = None
) -> ListOf[DistillationJob]:
    """List distillations, newest first."""
    return await list_jobs(session, page, DistillationJob.of, server.urls, kind=JobKind.DISTILLATION, state=state)


@router.get("/{job_id}")
async def get_distillation(
    job_id: str, _: Reader, transactions: TenantTransactions, server: Server, wait: Wait, response: Response
) -> DistillationJob:
    """Get a distillation as it stands, or with `Prefer: wait=N` once it has ended."""
    job = await read_job(transactions, job_id, kind=JobKind.DISTILLATION, wait=wait, response=response)
    async with transactions() as session:
        return await show(session, job, DistillationJob.of, server.urls)


@router.post("/{job_id}/cancel")
async def cancel_distillation(job_id: str, _: Distiller, session: TenantSession, server: Server) -> DistillationJob:
    """Cancel a distillation, and the jobs that draw its pairs."""
    return await act(session, verbs.cancel, job_id, DistillationJob.of, server.urls, kind=JobKind.DISTILLATION)


@router.post("/{job_id}/pause")
async def pause_distillation(job_id: str, _: Distiller, session: TenantSession, server: Server) -> DistillationJob:
    """Pause a distillation, and the jobs that draw its pairs. One that runs keeps a checkpoint."""
    return await act(session, verbs.pause, job_id, DistillationJob.of, server.urls, kind=JobKind.DISTILLATION)


@router.post("/{job_id}/resume")
async def resume_distillation(job_id: str, _: Distiller, session: TenantSession, server: Server) -> DistillationJob:
    """Let a paused distillation go on where it was."""
    return await act(session, verbs.resume, job_id, DistillationJob.of, server.urls, kind=JobKind.DISTILLATION)
