"""`/v1/generations`: jobs that draw pictures of a prompt."""

from __future__ import annotations

from functools import partial

from fastapi import APIRouter, Response

from api.dependencies import Generator, Reader, Resources, Server, TenantSession, TenantTransactions, draw_seed
from api.idempotency import Accept, JobCreation, NewJob
from api.jobs import StateFilter, act, list_jobs, read_job, show
from api.pagination import WantedPage
from api.schemas.common import ListOf
from api.schemas.drawing import CreateGeneration, CreateSweep, ReproduceGeneration, ReproducePicture
from api.schemas.generations import GenerationJob
from api.schemas.job import JobRequest
from api.waiting import Wait
from core.control import verbs
from core.jobs.acceptance import accept_generation
from core.jobs.reproduction import reproduce_file, reproduce_job
from core.jobs.requests import GenerationRequest
from core.jobs.states import JobKind
from core.tenants.authentication import Caller

router = APIRouter(prefix="/v1/generations", tags=["Generations"])

_UNCHANGED = ReproduceGeneration()


@router.post("", status_code=201, response_model=GenerationJob)
async def create_generation(body: CreateGeneration, caller: Generator, server: Server, new_job: NewJob) -> Response:
    """Draw pictures of a prompt, in which `<tom>` stands for the concept `tom`."""
    return await new_job.answer(body, _accepting(body, body.as_request(), caller, server, new_job))


@router.post("/sweep", status_code=201, response_model=GenerationJob)
async def create_sweep(body: CreateSweep, caller: Generator, server: Server, new_job: NewJob) -> Response:
    """Draw a prompt once at each of several values of a concept's dial, all with one seed: only the dial differs."""
    return await new_job.answer(body, _accepting(body, body.as_request(), caller, server, new_job))


@router.post("/reproduce", status_code=201, response_model=GenerationJob)
async def reproduce_picture(body: ReproducePicture, caller: Generator, server: Server, new_job: NewJob) -> Response:
    """Draw one picture again, by its file, from exactly what it was drawn from."""
    accept = partial(
        reproduce_file,
        tenant_id=caller.tenant_id,
        file_id=body.file,
        limits=body.limits(server.queue, caller.key_id, new_job.cancel_after),
    )
    return await new_job.answer(body, accept)


@router.post("/{job_id}/reproduce", status_code=201, response_model=GenerationJob)
async def reproduce_generation(
    job_id: str, caller: Generator, server: Server, new_job: NewJob, body: ReproduceGeneration = _UNCHANGED
) -> Response:
    """Draw a generation's pictures again, from exactly what it was accepted with: versions, seeds, settings, format."""
    accept = partial(
        reproduce_job,
        tenant_id=caller.tenant_id,
        job_id=job_id,
        limits=body.limits(server.queue, caller.key_id, new_job.cancel_after),
    )
    return await new_job.answer(body, accept)


def _accepting(
    body: JobRequest, request: GenerationRequest, caller: Caller, server: Resources, new_job: JobCreation
) -> Accept:
    return partial(
        accept_generation,
        tenant_id=caller.tenant_id,
        request=request,
        limits=body.limits(server.queue, caller.key_id, new_job.cancel_after),
        draw_seed=draw_seed,
    )


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
