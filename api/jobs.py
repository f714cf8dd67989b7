"""What the resources that show jobs have in common, each of one kind or of every kind."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from functools import partial
from typing import Annotated, TypeVar

from fastapi import Query, Response
from sqlalchemy.ext.asyncio import AsyncSession

from api.pagination import PageRequest, list_of
from api.schemas.common import ListOf
from api.schemas.job import JobBase
from api.urls import Urls
from api.waiting import Wait, applied, hold
from core.catalog.selection import names
from core.db.paging import read_page
from core.db.transactions import Transactions
from core.jobs import models, statements
from core.jobs.reading import get_job
from core.jobs.states import JobKind, JobState

J = TypeVar("J", bound=JobBase)

Shape = Callable[[models.Job, str, Urls], J]
"""Makes what is shown of a job, its model's name and the addresses to link to."""

JobVerb = Callable[[AsyncSession, str], Awaitable[models.Job]]
"""One of `core.control.verbs`."""

StateFilter = Annotated[JobState | None, Query(description="Only jobs in this state.")]


async def show(session: AsyncSession, job: models.Job, shape: Shape[J], urls: Urls) -> J:
    """One job as it is shown."""
    return shape(job, (await names(session, [job.model_id]))[job.model_id], urls)


async def act(
    session: AsyncSession, verb: JobVerb, job_id: str, shape: Shape[J], urls: Urls, *, kind: JobKind | None = None
) -> J:
    """Do something to a job of this kind, and show it as it then stands; raises NotFound and what the verb raises."""
    await get_job(session, job_id, kind=kind)
    return await show(session, await verb(session, job_id), shape, urls)


async def list_jobs(
    session: AsyncSession,
    page: PageRequest,
    shape: Shape[J],
    urls: Urls,
    *,
    kind: JobKind | None,
    state: JobState | None,
    parent_id: str | None = None,
) -> ListOf[J]:
    """One page of jobs, newest first."""
    rows = partial(statements.jobs_page, kind=kind, state=state, parent_id=parent_id)
    found = await read_page(
        session, rows, by_id=statements.job_by_id, after=page.after, before=page.before, limit=page.limit
    )
    model_names = await names(session, {job.model_id for job in found.rows})
    return list_of(found, lambda job: shape(job, model_names[job.model_id], urls))


async def read_job(
    transactions: Transactions, job_id: str, *, kind: JobKind | None, wait: Wait, response: Response
) -> models.Job:
    """The job now, or once it has ended if the client prefers to wait; raises NotFound."""
    async with transactions() as session:
        job = await get_job(session, job_id, kind=kind)
    if wait is not None:
        response.headers.update(applied(wait))
        job = await hold(transactions, job_id, wait)
    return job
