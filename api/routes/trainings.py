"""`/v1/trainings`: jobs that learn a concept from pictures."""

from __future__ import annotations

from fastapi import APIRouter, Response
from sqlalchemy.ext.asyncio import AsyncSession

from api.dependencies import Reader, Server, TenantSession, TenantTransactions, Trainer, draw_seed
from api.idempotency import NewJob
from api.jobs import StateFilter, act, list_jobs, read_job, show
from api.pagination import WantedPage
from api.schemas.common import ListOf
from api.schemas.trainings import CreateTraining, TrainingJob
from api.waiting import Wait
from core.control import verbs
from core.jobs.acceptance import accept_training
from core.jobs.models import Job
from core.jobs.states import JobKind

router = APIRouter(prefix="/v1/trainings", tags=["Trainings"])


@router.post("", status_code=201, response_model=TrainingJob)
async def create_training(body: CreateTraining, caller: Trainer, server: Server, new_job: NewJob) -> Response:
    """Learn a concept from pictures of a thing. A new name makes a new concept."""

    async def accept(session: AsyncSession) -> Job:
        return await accept_training(
            session,
            caller.tenant_id,
            body.as_request(),
            limits=body.limits(server.queue, caller.key_id, new_job.cancel_after),
            max_pictures=server.settings.max_training_pictures,
            draw_seed=draw_seed,
        )

    return await new_job.answer(body, accept)


@router.get("")
async def list_trainings(
    _: Reader, session: TenantSession, page: WantedPage, server: Server, state: StateFilter = None
) -> ListOf[TrainingJob]:
    """List trainings, newest first."""
    return await list_jobs(session, page, TrainingJob.of, server.urls, kind=JobKind.TRAINING, state=state)


@router.get("/{job_id}")
async def get_training(
    job_id: str, _: Reader, transactions: TenantTransactions, server: Server, wait: Wait, response: Response
) -> TrainingJob:
    """Get a training as it stands, or with `Prefer: wait=N` once it has ended."""
    job = await read_job(transactions, job_id, kind=JobKind.TRAINING, wait=wait, response=response)
    async with transactions() as session:
        return await show(session, job, TrainingJob.of, server.urls)


@router.post("/{job_id}/pause")
async def pause_training(job_id: str, _: Trainer, session: TenantSession, server: Server) -> TrainingJob:
    """Pause a training. One that runs keeps a checkpoint and is given back by its worker."""
    return await act(session, verbs.pause, job_id, TrainingJob.of, server.urls, kind=JobKind.TRAINING)


@router.post("/{job_id}/resume")
async def resume_training(job_id: str, _: Trainer, session: TenantSession, server: Server) -> TrainingJob:
    """Let a paused training go on where it was."""
    return await act(session, verbs.resume, job_id, TrainingJob.of, server.urls, kind=JobKind.TRAINING)


@router.post("/{job_id}/cancel")
async def cancel_training(job_id: str, _: Trainer, session: TenantSession, server: Server) -> TrainingJob:
    """Cancel a training. One that waits ends at once; one that runs is asked to stop, and ends shortly after."""
    return await act(session, verbs.cancel, job_id, TrainingJob.of, server.urls, kind=JobKind.TRAINING)
