"""`/v1/admin`: what operators see across tenants, and the levers they turn. Every act is written down."""

from __future__ import annotations

from functools import partial
from typing import Annotated, Any

from fastapi import APIRouter, Query, Response

from api.dependencies import Acting, OperatorSession, Server
from api.pagination import Limit, WantedPage, list_of
from api.schemas.admin import (
    AuditedAct,
    ChangeApiKey,
    ChangeJob,
    ChangeModel,
    ChangePool,
    ChangeTenant,
    ChangeWorker,
    FailureCount,
    JobOfTenant,
    PoolList,
    PoolState,
    PriorityWaits,
    SelfTestState,
    TenantInPool,
    TenantsInPool,
    WorkerList,
    WorkerState,
)
from api.schemas.common import ListOf
from api.schemas.webhook_endpoints import Delivery
from core.db.paging import read_page
from core.db.transactions import tenant_transactions
from core.jobs import statements as jobs
from core.jobs.states import JobState
from core.operations import acts, on_behalf, reads, statements
from core.operations.reads import PoolView
from core.scheduling.fairshare import Priority
from core.selftest import records
from core.webhooks.subscriptions import get_endpoint

router = APIRouter(prefix="/v1/admin", tags=["Operations"])

TenantFilter = Annotated[str | None, Query(description="Only of this tenant.")]
PoolFilter = Annotated[str | None, Query(description="Only of this pool.")]


@router.get("/pools")
async def list_pools(session: OperatorSession) -> PoolList:
    """List pools: what waits and runs, how long waits were, what failed."""
    return PoolList(data=[_pool(view) for view in await reads.pools(session)])


def _pool(view: PoolView) -> PoolState:
    row = view.pool
    return PoolState(
        name=row.name,
        paused=row.paused_at is not None,
        queued=row.queued,
        running=row.running,
        oldest_wait=row.oldest_wait,
        workers=row.workers,
        recent=[_waits(dict(recent._mapping)) for recent in view.recent],
        failures=[FailureCount.model_validate(dict(failure._mapping)) for failure in view.failures],
    )


def _waits(row: dict[str, Any]) -> PriorityWaits:
    return PriorityWaits.model_validate(row | {"priority": Priority(row["priority"]).name.lower()})


@router.patch("/pools/{pool}")
async def change_pool(pool: str, body: ChangePool, session: OperatorSession, actor: Acting) -> PoolList:
    """Pause or resume a pool: from the next claim on nothing is started in it."""
    await session.run_sync(acts.pause_pool, actor, pool, paused=body.paused)
    return await list_pools(session)


@router.get("/pools/{pool}/tenants")
async def list_tenants_in_pool(
    pool: str, session: OperatorSession, after: Annotated[str | None, Query()] = None, limit: Limit = 20
) -> TenantsInPool:
    """List a pool's tenants: their weights, caps and pauses, what they have running and queued."""
    rows, has_more = await reads.tenants(session, pool, after=after, limit=limit)
    weights = sum(row.weight for row in rows if row.queued or row.running)
    shown = [
        TenantInPool(
            tenant_id=row.tenant_id,
            name=row.name,
            weight=row.weight,
            share=row.weight / weights if weights and (row.queued or row.running) else 0.0,
            max_running=row.max_running,
            running=row.running,
            queued=row.queued,
            paused=row.paused_at is not None,
        )
        for row in rows
    ]
    return TenantsInPool(data=shown, has_more=has_more, last_id=shown[-1].tenant_id if shown else None)


@router.patch("/pools/{pool}/tenants/{tenant_id}", status_code=204)
async def change_tenant(pool: str, tenant_id: str, body: ChangeTenant, session: OperatorSession, actor: Acting) -> None:
    """Change a tenant's weight or cap in a pool, or pause or resume it there, from the next claim on."""
    change = partial(acts.change_tenant, weight=body.weight, max_running=body.max_running, paused=body.paused)
    await session.run_sync(change, actor, pool, tenant_id)


@router.patch("/models/{model_id}", status_code=204)
async def change_model(model_id: str, body: ChangeModel, session: OperatorSession, actor: Acting) -> None:
    """Pause or resume a model: from the next claim on none of its jobs is started."""
    await session.run_sync(acts.pause_model, actor, model_id, paused=body.paused)


@router.patch("/api_keys/{api_key_id}", status_code=204)
async def change_api_key(api_key_id: str, body: ChangeApiKey, session: OperatorSession, actor: Acting) -> None:
    """Set or lift the cap of an API key; it holds for what is queued already."""
    await session.run_sync(acts.cap_key, actor, api_key_id, body.max_running)


@router.get("/workers")
async def list_workers(
    session: OperatorSession,
    *,
    pool: PoolFilter = None,
    after: Annotated[str | None, Query()] = None,
    limit: Limit = 100,
) -> WorkerList:
    """List workers that have not stopped, the first started first."""
    rows, has_more = await reads.workers(session, pool, after=after, limit=limit)
    return WorkerList(
        data=[WorkerState.of(worker) for worker in rows], has_more=has_more, last_id=rows[-1].id if rows else None
    )


@router.patch("/workers/{worker_id}", status_code=204)
async def change_worker(worker_id: str, body: ChangeWorker, session: OperatorSession, actor: Acting) -> None:
    """Take a worker out of service, or back into it: it finishes its batch, or loses it, and claims nothing more."""
    drain = partial(acts.drain_worker, drained=body.drained, quarantined=body.quarantined, reason=body.reason)
    await session.run_sync(drain, actor, worker_id)


@router.get("/jobs")
async def list_jobs_of_all(
    session: OperatorSession,
    page: WantedPage,
    *,
    tenant: TenantFilter = None,
    pool: PoolFilter = None,
    state: Annotated[JobState | None, Query(description="Only jobs in this state.")] = None,
) -> ListOf[JobOfTenant]:
    """List jobs of all tenants, newest first."""
    rows = partial(statements.jobs_page, tenant_id=tenant, pool=pool, state=state)
    found = await read_page(session, rows, by_id=jobs.job_by_id, after=page.after, before=page.before, limit=page.limit)
    return list_of(found, JobOfTenant.of)


@router.patch("/jobs/{job_id}", status_code=204)
async def change_job(job_id: str, body: ChangeJob, session: OperatorSession, actor: Acting) -> None:
    """Move a queued job to another priority among its tenant's."""
    await session.run_sync(acts.move_job, actor, job_id, Priority[body.priority.upper()])


@router.post("/jobs/{job_id}/cancel", status_code=204)
async def cancel_job_of_any(job_id: str, session: OperatorSession, actor: Acting) -> None:
    """Cancel a job, whosever it is. One that waits ends at once; one that runs is asked to stop."""
    await session.run_sync(acts.cancel_job, actor, job_id)


@router.post("/jobs/{job_id}/retry", status_code=201)
async def retry_job_of_any(job_id: str, session: OperatorSession, server: Server, actor: Acting) -> JobOfTenant:
    """Try a job again that failed, was canceled or expired, as its tenant could, which pays for it."""
    tenant_id = await reads.tenant_of_job(session, job_id)
    async with tenant_transactions(server.sessions, tenant_id)() as own:
        return JobOfTenant.of(await on_behalf.retry_job(own, actor, tenant_id, job_id, limits=server.queue))


@router.post("/webhook_endpoints/{endpoint_id}/deliveries/{delivery_id}/resend", status_code=202)
async def resend_delivery_of_any(
    endpoint_id: str, delivery_id: str, session: OperatorSession, server: Server, actor: Acting
) -> Delivery:
    """Send an event to an endpoint of any tenant once more, whatever became of it."""
    tenant_id = (await get_endpoint(session, endpoint_id)).tenant_id
    async with tenant_transactions(server.sessions, tenant_id)() as own:
        return Delivery.of(await on_behalf.resend(own, actor, tenant_id, endpoint_id, delivery_id))


@router.post("/selftest", status_code=202)
async def start_self_test(session: OperatorSession, actor: Acting, response: Response) -> SelfTestState:
    """Have a synthetic tenant go once through everything, each stage timed; look how it goes at `Location`."""
    made = await session.run_sync(records.request, actor)
    response.headers["Location"] = f"/v1/admin/selftest/{made.id}"
    return SelfTestState.of(made)


@router.get("/selftest/{self_test}")
async def get_self_test(self_test: str, session: OperatorSession) -> SelfTestState:
    """Tell how a self test went, or goes: what has ended of it by now."""
    return SelfTestState.of(await session.run_sync(records.get, self_test))


@router.get("/audit")
async def list_audit(session: OperatorSession, page: WantedPage, tenant: TenantFilter = None) -> ListOf[AuditedAct]:
    """List privileged acts, the latest first: who did what to which object, and what was there before."""
    rows = partial(statements.audit_page, tenant_id=tenant)
    found = await read_page(
        session, rows, by_id=statements.audit_by_id, after=page.after, before=page.before, limit=page.limit
    )
    return list_of(found, AuditedAct.of)
