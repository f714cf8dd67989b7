"""`/admin`: pools, tenants, workers, jobs and the audit log as pages that follow what happens, for operators."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from functools import partial
from typing import Annotated, Any

from fastapi import APIRouter, Form, Query, Request, Response
from fastapi.responses import HTMLResponse, RedirectResponse, StreamingResponse
from sqlalchemy.ext.asyncio import AsyncSession

from api.dependencies import Acting, Operator, OperatorSession, Server
from api.pages.live import live
from api.pages.rendering import page
from api.pagination import WantedPage
from api.schemas.job import PriorityName
from core.db.paging import read_page
from core.jobs import statements as jobs
from core.jobs.retrying import RETRYABLE
from core.jobs.states import JobState
from core.operations import acts, reads, statements
from core.scheduling.fairshare import Priority

router = APIRouter(prefix="/admin", include_in_schema=False)

_MOST_TENANTS = 200
_MOST_WORKERS = 500
_MOST_PICTURES = 16
_PRIORITIES = {priority.name.lower(): priority for priority in reversed(Priority)}

Values = dict[str, Any]
Reading = Callable[[AsyncSession], Awaitable[Values]]


async def _pools(session: AsyncSession) -> Values:
    names = {int(priority): name for name, priority in _PRIORITIES.items()}
    return {"pools": await reads.pools(session), "priorities": names}


async def _pool(session: AsyncSession, *, name: str) -> Values:
    rows, has_more = await reads.tenants(session, name, after=None, limit=_MOST_TENANTS)
    weights = sum(row.weight for row in rows if row.queued or row.running)
    running = sum(row.running for row in rows)
    models = {model.id: model.name for model in await reads.models(session)}
    workers, _ = await reads.workers(session, name, after=None, limit=_MOST_WORKERS)
    return {
        "workers": workers,
        "view": await reads.pool(session, name),
        "lanes": [(_spoken(row.lane, models), row) for row in await reads.lanes(session, name)],
        "tenants": rows,
        "has_more": has_more,
        "weights": weights,
        "running": running,
    }


def _spoken(lane: str, models: Mapping[str, str]) -> str:
    """A lane with its model's name in place of the id."""
    return ":".join(models.get(part, part) for part in lane.split(":"))


async def _workers(session: AsyncSession) -> Values:
    rows, has_more = await reads.workers(session, None, after=None, limit=_MOST_WORKERS)
    models = {model.id: model.name for model in await reads.models(session)}
    return {"workers": rows, "has_more": has_more, "models": models}


async def _job(session: AsyncSession, *, job_id: str) -> Values:
    life = await reads.job_life(session, job_id)
    names = {int(priority): name for name, priority in _PRIORITIES.items()}
    is_terminal = JobState(life.job.state).is_terminal
    images = (life.job.result or {}).get("images", [])
    return {
        "life": life,
        "job": life.job,
        "priorities": names,
        "is_terminal": is_terminal,
        "is_retryable": life.job.state in RETRYABLE and life.job.parent_id is None,
        "pictures": [image["file_id"] for image in images[:_MOST_PICTURES] if image.get("file_id")],
    }


def _following(request: Request, server: Server, template: str, reading: Reading) -> StreamingResponse:
    async def read() -> Values:
        async with server.operator_sessions() as session, session.begin():
            return await reading(session)

    return live(request, template, read)


def done(request: Request, told: str, back: str) -> Response:
    """Answer an act: told to the page that asked, which follows what happens anyhow; else go back to one."""
    if "hx-request" in request.headers:
        return Response(headers={"HX-Trigger": f'{{"tell": "{told}"}}'})
    return RedirectResponse(back, status_code=303)


@router.get("")
async def show_pools(request: Request, session: OperatorSession) -> HTMLResponse:
    """Show every pool."""
    return page(request, "admin/pools.html", **await _pools(session))


@router.get("/live/pools")
async def follow_pools(request: Request, server: Server, _: Operator) -> StreamingResponse:
    """Follow every pool."""
    return _following(request, server, "admin/_pools.html", _pools)


@router.get("/pools/{name}")
async def show_pool(request: Request, name: str, session: OperatorSession) -> HTMLResponse:
    """Show a pool's lanes and tenants."""
    return page(request, "admin/pool.html", **await _pool(session, name=name))


@router.get("/live/pools/{name}")
async def follow_pool(request: Request, name: str, server: Server, _: Operator) -> StreamingResponse:
    """Follow a pool's lanes and tenants."""
    return _following(request, server, "admin/_pool.html", partial(_pool, name=name))


@router.post("/pools/{name}")
async def turn_pool(
    request: Request, name: str, session: OperatorSession, actor: Acting, *, paused: Annotated[bool, Form()]
) -> Response:
    """Pause or resume a pool."""
    await session.run_sync(acts.pause_pool, actor, name, paused=paused)
    return done(request, f"{name} is {'paused' if paused else 'resumed'}.", f"/admin/pools/{name}")


@router.get("/pools/{name}/tenants/{tenant_id}")
async def show_tenant(request: Request, name: str, tenant_id: str, session: OperatorSession) -> HTMLResponse:
    """Show what may be changed about a tenant in a pool."""
    tenant = await reads.tenant_in_pool(session, name, tenant_id)
    return page(request, "admin/tenant.html", pool=name, tenant=tenant)


@router.post("/pools/{name}/tenants/{tenant_id}")
async def turn_tenant(
    request: Request,
    name: str,
    tenant_id: str,
    session: OperatorSession,
    actor: Acting,
    *,
    weight: Annotated[int | None, Form(ge=1, le=1_000_000)] = None,
    max_running: Annotated[int | None, Form(ge=0, le=1_000_000)] = None,
    paused: Annotated[bool | None, Form()] = None,
) -> Response:
    """Change a tenant's weight or cap in a pool, or pause or resume it there."""
    change = partial(acts.change_tenant, weight=weight, max_running=max_running, paused=paused)
    await session.run_sync(change, actor, name, tenant_id)
    return done(request, "Holds from the next claim on.", f"/admin/pools/{name}")


@router.get("/workers")
async def show_workers(request: Request, session: OperatorSession) -> HTMLResponse:
    """Show the workers that have not stopped."""
    return page(request, "admin/workers.html", **await _workers(session))


@router.get("/live/workers")
async def follow_workers(request: Request, server: Server, _: Operator) -> StreamingResponse:
    """Follow the workers."""
    return _following(request, server, "admin/_workers.html", _workers)


@router.post("/workers/{worker_id}")
async def turn_worker(
    request: Request,
    worker_id: str,
    session: OperatorSession,
    actor: Acting,
    *,
    drained: Annotated[bool, Form()],
    quarantined: Annotated[bool, Form()] = False,
    reason: Annotated[str, Form(max_length=500)] = "",
) -> Response:
    """Take a worker out of service, or back into it."""
    drain = partial(acts.drain_worker, drained=drained, quarantined=quarantined, reason=reason)
    await session.run_sync(drain, actor, worker_id)
    told = "It claims again."
    if drained:
        told = "What it held is queued again." if quarantined else "It ends its batch and claims nothing more."
    return done(request, told, "/admin/workers")


@router.get("/jobs")
async def show_jobs(
    request: Request,
    session: OperatorSession,
    wanted: WantedPage,
    *,
    tenant: str = "",
    pool: str = "",
    state: Annotated[JobState | None, Query()] = None,
) -> HTMLResponse:
    """Show jobs of all tenants."""
    rows = partial(statements.jobs_page, tenant_id=tenant or None, pool=pool or None, state=state)
    found = await read_page(
        session, rows, by_id=jobs.job_by_id, after=wanted.after, before=wanted.before, limit=wanted.limit
    )
    chosen = {name: value for name, value in (("tenant", tenant), ("pool", pool), ("state", state)) if value}
    return page(request, "admin/jobs.html", found=found, chosen=chosen, states=list(JobState))


@router.get("/jobs/{job_id}")
async def show_job(request: Request, job_id: str, session: OperatorSession) -> HTMLResponse:
    """Show a job's whole life."""
    return page(request, "admin/job.html", **await _job(session, job_id=job_id))


@router.get("/live/jobs/{job_id}")
async def follow_job(request: Request, job_id: str, server: Server, _: Operator) -> StreamingResponse:
    """Follow a job."""
    return _following(request, server, "admin/_job.html", partial(_job, job_id=job_id))


@router.post("/jobs/{job_id}/cancel")
async def cancel_job(request: Request, job_id: str, session: OperatorSession, actor: Acting) -> Response:
    """Cancel a job of any tenant."""
    await session.run_sync(acts.cancel_job, actor, job_id)
    return done(request, "It is canceled, or asked to stop.", f"/admin/jobs/{job_id}")


@router.post("/jobs/{job_id}/priority")
async def move_job(
    request: Request, job_id: str, session: OperatorSession, actor: Acting, *, priority: Annotated[PriorityName, Form()]
) -> Response:
    """Move a queued job to another priority."""
    await session.run_sync(acts.move_job, actor, job_id, Priority[priority.upper()])
    return done(request, f"Its priority is {priority}.", f"/admin/jobs/{job_id}")


@router.get("/models")
async def show_models(request: Request, session: OperatorSession) -> HTMLResponse:
    """Show the models, with their pauses."""
    return page(request, "admin/models.html", models=await reads.models(session))


@router.post("/models/{model_id}")
async def turn_model(
    model_id: str, session: OperatorSession, actor: Acting, *, paused: Annotated[bool, Form()]
) -> Response:
    """Pause or resume a model in all pools."""
    await session.run_sync(acts.pause_model, actor, model_id, paused=paused)
    return RedirectResponse("/admin/models", status_code=303)


@router.get("/audit")
async def show_audit(request: Request, session: OperatorSession, wanted: WantedPage, tenant: str = "") -> HTMLResponse:
    """Show privileged acts, the latest first."""
    rows: Any = partial(statements.audit_page, tenant_id=tenant or None)
    found = await read_page(
        session, rows, by_id=statements.audit_by_id, after=wanted.after, before=wanted.before, limit=wanted.limit
    )
    return page(request, "admin/audit.html", found=found, tenant=tenant)
