"""`/v1/generations`: jobs that draw pictures of a prompt."""

from __future__ import annotations

from fastapi import APIRouter, Response
from sqlalchemy.ext.asyncio import AsyncSession

from api.dependencies import Generator, Reader, Server, TenantSession, TenantTransactions, draw_seed
from api.idempotency import NewJob
from api.jobs import StateFilter, act, list_jobs, read_job, show
from api.pagination import WantedPage
from api.schemas.common import ListOf
from api.schemas.generations import CreateGeneration, GenerationJob
from api.waiting import Wait
from core.control import verbs
from core.jobs.acceptance import accept_generation
from core.jobs.models import Job
from core.jobs.states import JobKind

router = APIRouter(prefix="/v1/generations", tags=["Generations"])


@router.post("", status_code=201, response_model=GenerationJob)
async def create_generation(body: CreateGeneration, caller: Generator, server: Server, new_job: NewJob) -> Response:
    """Draw pictures of a prompt, in which `<tom>` stands for the concept `tom`."""

    async def accept(session: AsyncSession) -> Job:
        return await accept_generation(
            session,
            caller.tenant_id,
            body.as_request(),
            limits=server.queue,
            draw_seed=draw_seed,
        )

    return await new_job.answer(body, accept)


@router.get("")
async def list_generations(
    _: Reader, session: TenantSession, page: WantedPage, server: Server, state: StateFilter = None
) -> ListOf[GenerationJob]:
    """List generations, newest first."""
    return await list_jobs(session, page, GenerationJob.of, server.urls, kind=JobKind.GENERATION, state=state)


@router.get("/{job_id}")
async def get_generation(
    job_id: str, _: Reader, transactions: TenantTransactions, server: Server, wait: Wait, response: Response
) -> GenerationJob:
    """Get a generation as it stands, or with `Prefer: wait=N` once it has ended."""
    job = await read_job(transactions, job_id, kind=JobKind.GENERATION, wait=wait, response=response)
    async with transactions() as session:
        return await show(session, job, GenerationJob.of, server.urls)


@router.post("/{job_id}/cancel")
async def cancel_generation(job_id: str, _: Generator, session: TenantSession, server: Server) -> GenerationJob:
    """Cancel a generation. One that waits ends at once; one that runs is asked to stop, and ends shortly after."""
    return await act(session, verbs.cancel, job_id, GenerationJob.of, server.urls, kind=JobKind.GENERATION)
