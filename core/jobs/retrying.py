"""Trying again, by hand, what did not succeed: a new job with the same parameters that names the old one.

A new one, because an end is final: it has been told to webhooks, streams and whoever waited, and is told once. Nothing
is tried again twice, so a repeated request for a retry makes no second job. It starts over: checkpoints of a job that
has ended are not kept.
"""

from __future__ import annotations

from dataclasses import replace

from pydantic import TypeAdapter
from sqlalchemy.ext.asyncio import AsyncSession

from core.catalog import statements as catalog
from core.catalog.selection import require_ready
from core.errors import NotRetryable
from core.jobs import statements
from core.jobs.distilling import submit_distillation
from core.jobs.models import Job
from core.jobs.params import AnyParams, DistillationParams, JobParams
from core.jobs.reading import get_job
from core.jobs.states import JobState
from core.jobs.submission import QueueLimits, submit
from core.scheduling.fairshare import Priority
from core.webhooks.requested import RequestedWebhook

RETRYABLE = frozenset({JobState.FAILED, JobState.CANCELED, JobState.EXPIRED})
_PARAMS: TypeAdapter[AnyParams] = TypeAdapter(JobParams)


async def retry(session: AsyncSession, tenant_id: str, job_id: str, *, limits: QueueLimits) -> Job:
    """A job that does what that one was to do, at its priority.

    Raises NotFound; NotRetryable for one that goes on, succeeded, was tried again already or was made for another one;
    and ModelNotReady or Conflict where its model has changed since.
    """
    old = await get_job(session, job_id)
    await _check(session, old)
    params = _PARAMS.validate_python(old.params)
    model = (await session.scalars(catalog.model_named(old.model_id))).one()
    require_ready(model, param="id")
    limits = replace(limits, priority=Priority(old.priority), webhook=_webhook(old))
    if isinstance(params, DistillationParams):
        await _check_student(session, params)
        return await submit_distillation(session, tenant_id, params, limits=limits, retry_of=old.id)
    return await submit(session, tenant_id, params, limits=limits, warnings=old.warnings, retry_of=old.id)


def _webhook(old: Job) -> RequestedWebhook | None:
    return None if old.webhook is None else RequestedWebhook(old.webhook["url"], old.webhook["event_types"])


async def _check_student(session: AsyncSession, params: DistillationParams) -> None:
    student = await session.scalar(catalog.model_named(params.student_id))
    if student is None or student.is_ready:
        raise NotRetryable(f"The student {params.student_name!r} was made meanwhile, or is gone.", param="id")


async def _check(session: AsyncSession, old: Job) -> None:
    if JobState(old.state) not in RETRYABLE:
        raise NotRetryable(f"Job {old.id} is {old.state}: only what did not succeed is tried again.", param="id")
    if old.parent_id is not None:
        raise NotRetryable(f"Job {old.id} was made for {old.parent_id}: retry that one.", param="id")
    if (again := await session.scalar(statements.retry_of(old.id))) is not None:
        raise NotRetryable(f"Job {old.id} was tried again already, as {again}.", param="id")
