"""Drafts: one picture in one step, drawn while somebody turns a dial. The next one takes the last one's place."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Final

from sqlalchemy.ext.asyncio import AsyncSession

from core.control import verbs
from core.errors import NotCancelable
from core.jobs import statements
from core.jobs.acceptance import accept_generation
from core.jobs.models import Job
from core.jobs.requests import GenerationRequest
from core.jobs.submission import QueueLimits
from core.scheduling.fairshare import Priority

_WANTED_FOR: Final = timedelta(minutes=2)  # nobody looks at a slider for longer


@dataclass(frozen=True)
class Draft:
    """A draft that was accepted, and the pictures of the one before it, which nobody needs any more."""

    job: Job
    outdated: tuple[str, ...]


async def accept_draft(
    session: AsyncSession,
    tenant_id: str,
    request: GenerationRequest,
    *,
    replaces: str | None,
    limits: QueueLimits,
    draw_seed: Callable[[], int],
) -> Draft:
    """A draft of what the request asks for, ahead of the tenant's other jobs; the one that it replaces is canceled.

    Raises what accepting a generation raises; then the older draft goes on.
    """
    outdated = await _withdraw(session, replaces)
    wanted = replace(request, n=1, steps=None, guidance=None, negative_prompt="", draft=True)
    limits = replace(limits, priority=Priority.HIGH, cancel_after=_WANTED_FOR)
    job = await accept_generation(session, tenant_id, wanted, limits=limits, draw_seed=draw_seed)
    return Draft(job, outdated)


async def _withdraw(session: AsyncSession, job_id: str | None) -> tuple[str, ...]:
    """Cancel a draft that nobody waits for any more, or tell its pictures; any other job is left alone."""
    job = None if job_id is None else await session.scalar(statements.job_by_id(job_id))
    if job is None or not job.params.get("draft"):
        return ()
    try:
        await verbs.cancel(session, job.id)
    except NotCancelable:  # it has ended by now
        return tuple(image["file_id"] for image in (job.result or {}).get("images", ()))
    return ()
