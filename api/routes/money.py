"""`/v1/budgets`, `/v1/usage`, `/v1/quotes` and `/v1/limits`: what may be spent, what was, and what else is limited."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import replace
from datetime import date, timedelta
from functools import partial
from typing import Annotated

from fastapi import APIRouter, Query

from api.dependencies import Acting, Administrator, AnyCaller, Reader, Resources, Server, TenantSession, draw_seed
from api.idempotency import Accept
from api.schemas.common import ListOf
from api.schemas.money import (
    AskQuote,
    Budget,
    Cap,
    Limits,
    Quote,
    QuoteDistillation,
    QuoteGeneration,
    QuoteSweep,
    QuoteTraining,
    Rate,
    SetBudget,
    Usage,
)
from core.budgets import budgets, quotes, usage
from core.budgets.terms import Estimating
from core.files import uploads
from core.jobs.acceptance import accept_generation, accept_training
from core.jobs.distilling import accept_distillation
from core.jobs.models import Job
from core.tenants import allowances
from core.tenants.authentication import Caller

router = APIRouter(prefix="/v1")

_SCOPES = {"training": "train", "distillation": "distill", "generation": "generate", "sweep": "generate"}

Day = Annotated[date, Query(ge=date(2000, 1, 1), le=date(2199, 12, 31))]


@router.get("/budgets", tags=["Money"])
async def list_budgets(caller: Administrator, session: TenantSession) -> ListOf[Budget]:
    """List the tenant's budget, and those of its API keys that have a limit."""
    standings = await budgets.standings(session, caller.tenant_id)
    shown = [Budget.of(standing) for standing in standings]
    return ListOf(data=shown, has_more=len(shown) == budgets.MOST_SHOWN, first_id=None, last_id=None)


@router.put("/budgets", tags=["Money"])
async def set_budget(body: SetBudget, caller: Administrator, session: TenantSession, actor: Acting) -> Budget:
    """Set what the tenant, or one of its API keys, may spend. What was reserved and charged before counts."""
    standing = await budgets.set_limit(
        session,
        caller.tenant_id,
        body.api_key_id,
        limit_ms=None if body.limit is None else round(body.limit * 1000),
        period=body.period,
        hard=body.hard,
        actor=actor,
    )
    return Budget.of(standing)


@router.get("/usage", tags=["Money"])
async def get_usage(
    _: Reader,
    session: TenantSession,
    first: Annotated[Day | None, Query(alias="from", description="The first day (UTC).")] = None,
    last: Annotated[Day | None, Query(alias="to", description="The last day, by default today.")] = None,
    group_by: Annotated[list[usage.Grouping], Query(max_length=4, description="By default `day`.")] = ["day"],  # noqa: B006
) -> Usage:
    """Tell how many jobs ended and what was charged for them, on at most 92 days."""
    groups = list(dict.fromkeys(group_by))
    return Usage.of(await usage.usage(session, first, last, groups), groups)


@router.post("/quotes", status_code=201, tags=["Money"])
async def create_quote(body: AskQuote, caller: AnyCaller, session: TenantSession, server: Server) -> Quote:
    """Tell the most that a request will cost, if it is sent with this quote before that expires.

    The request is checked as if it were carried out; what it would be refused for, it is refused for here.
    """
    caller.require(_SCOPES[body.kind])
    quoted = await quotes.give(
        session,
        caller.tenant_id,
        body.request.sha256(),
        _accepting(body, caller, server),
        lifetime=timedelta(minutes=server.settings.quote_minutes),
    )
    return Quote.of(quoted, body.kind)


def _accepting(body: AskQuote, caller: Caller, server: Resources) -> Accept:
    """Carries the request out on no terms at all."""
    limits = replace(server.queue.of(caller.key_id), terms=Estimating(None))
    accept: Callable[..., Awaitable[Job]]
    match body:
        case QuoteTraining():
            most = server.settings.max_training_pictures
            accept = partial(accept_training, request=body.request.as_request(), max_pictures=most)
        case QuoteDistillation():
            accept = partial(accept_distillation, request=body.request.as_request())
        case QuoteGeneration() | QuoteSweep():
            accept = partial(accept_generation, request=body.request.as_request())
    return partial(accept, tenant_id=caller.tenant_id, limits=limits, draw_seed=draw_seed)


@router.get("/limits", tags=["Money"])
async def get_limits(caller: Reader, session: TenantSession, server: Server) -> Limits:
    """Tell what holds for this API key, and how much of it is used."""
    settings = server.settings
    standings = await budgets.standings(session, caller.tenant_id, caller.key_id)
    tenant = standings[0]
    rates = await allowances.rates(session, caller.tenant_id, server.rates.values())
    running = await allowances.max_running(session, caller.tenant_id, settings.pool)
    return Limits(
        rates=[Rate.of(rate) for rate in rates],
        jobs=Cap(limit=settings.tenant_max_jobs or None, used=tenant.jobs),
        tenant_max_running=settings.tenant_max_running if running is None else running,
        stored_bytes=Cap(limit=settings.tenant_max_bytes or None, used=tenant.stored_bytes),
        open_uploads=Cap(limit=uploads.MOST_OPEN, used=(await uploads.opened(session, caller.tenant_id)).number),
        max_upload_bytes=settings.max_upload_bytes,
        max_picture_pixels=settings.max_picture_pixels,
        max_training_pictures=settings.max_training_pictures,
        budgets=[Budget.of(standing) for standing in standings if standing.api_key_id in (None, caller.key_id)],
    )
