"""The gallery: the tenant's pictures, each with exactly what it was drawn from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import partial

from sqlalchemy.ext.asyncio import AsyncSession

from core.catalog.selection import names
from core.db.paging import Page, read_page
from core.errors import NotFound
from core.files import library
from core.files import statements as files
from core.files.models import File
from core.jobs import statements as jobs
from core.jobs.params import GenerationParams
from core.jobs.reproduction import picture_params


@dataclass(frozen=True)
class Picture:
    """One picture that a generation drew; its parameters draw this one again, and no other."""

    file: File
    job_id: str
    params: GenerationParams
    model: str

    @property
    def id(self) -> str:
        """The file's."""
        return self.file.id

    @property
    def created_at(self) -> datetime:
        """The file's."""
        return self.file.created_at


async def pictures(session: AsyncSession, *, after: str | None, before: str | None, limit: int) -> Page[Picture]:
    """A page of pictures, newest first; raises NotFound where the one to go on from is gone."""
    rows = partial(files.files_page, purpose="output")
    found = await read_page(session, rows, by_id=files.file_by_id, after=after, before=before, limit=limit)
    return Page(await _drawn(session, found.rows), found.has_more)


async def picture(session: AsyncSession, file_id: str) -> Picture:
    """One picture; raises NotFound, also for a file that no generation drew."""
    file = await library.get(session, file_id)
    drawn = await _drawn(session, [file]) if file.purpose == "output" else []
    if not drawn:
        raise NotFound(f"{file_id} is no picture that a generation drew.", param="id")
    return drawn[0]


async def _drawn(session: AsyncSession, found: Sequence[File]) -> list[Picture]:
    ids = {file.job_id for file in found if file.job_id is not None}
    made_by = {job.id: job for job in await session.scalars(jobs.jobs_by_ids(ids))}
    model_names = await names(session, {job.model_id for job in made_by.values()})
    return [
        Picture(file, job.id, picture_params(job, file.id), model_names[job.model_id])
        for file in found
        if file.job_id is not None and (job := made_by[file.job_id]).result is not None
    ]
