"""What routes ask for by type: who calls, with which right, and the database as that tenant sees it."""

from __future__ import annotations

import secrets
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass
from typing import Annotated

from anyio import CapacityLimiter
from fastapi import Depends, Request
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession, async_sessionmaker

from api.errors import makes_job
from api.urls import Urls
from core.config import Settings
from core.db.transactions import Transactions, tenant_transactions
from core.errors import Limit, RateLimited, Unauthenticated
from core.jobs.acceptance import SEEDS
from core.jobs.submission import QueueLimits
from core.operations.audit import Actor
from core.storage.s3 import ObjectStore
from core.tenants.authentication import Caller, authenticate
from core.tenants.rates import PolicyName, RatePolicy, whole_seconds
from core.webhooks.target_policy import TargetPolicy


@dataclass(frozen=True)
class Resources:
    """What one process of the API works with."""

    settings: Settings
    engine: AsyncEngine
    sessions: async_sessionmaker[AsyncSession]
    store: ObjectStore
    urls: Urls
    queue: QueueLimits
    webhook_targets: TargetPolicy
    operator_engine: AsyncEngine
    operator_sessions: async_sessionmaker[AsyncSession]
    decoders: CapacityLimiter  # pictures being decoded at once: each may take hundreds of megabytes
    rates: Mapping[PolicyName, RatePolicy]

    def rate_of(self, request: Request) -> RatePolicy:
        """The rate limit that a request counts for."""
        return self.rates["jobs" if makes_job(request.method, request.url.path) else "requests"]


def _resources(request: Request) -> Resources:
    resources = request.app.state.resources
    assert isinstance(resources, Resources)
    return resources


Server = Annotated[Resources, Depends(_resources)]

_bearer = HTTPBearer(auto_error=False, scheme_name="API key", description="A key such as `lk_live_...`.")


async def _caller(
    request: Request, server: Server, sent: Annotated[HTTPAuthorizationCredentials | None, Depends(_bearer)]
) -> Caller:
    if sent is None:
        raise Unauthenticated("Send an API key, as in `Authorization: Bearer lk_live_...`.")
    async with server.engine.connect() as connection:
        # One statement, committed by itself: what a refused request took stays taken.
        await connection.execution_options(isolation_level="AUTOCOMMIT")
        caller = await authenticate(connection, sent.credentials, server.rate_of(request))
    _check_rate(request, caller)
    return caller


def _check_rate(request: Request, caller: Caller) -> None:
    rate = caller.rate
    if rate is None:
        return
    request.state.rate_limit = {
        "RateLimit-Policy": rate.policy.as_header(),
        "RateLimit": rate.as_header(),
    }
    if not rate.taken:
        policy, pause = rate.policy, max(1, whole_seconds(rate.next_in))
        raise RateLimited(
            f"{policy.quota} {policy.name} a minute are served; the next one in {pause} s.",
            limit=Limit(f"rate.{policy.name}", policy.quota, 0),
            retry_after=pause,
        )


AnyCaller = Annotated[Caller, Depends(_caller)]


def _with_scope(scope: str) -> Callable[[Caller], Caller]:
    def caller(caller: AnyCaller) -> Caller:
        caller.require(scope)
        return caller

    return caller


Reader = Annotated[Caller, Depends(_with_scope("read"))]
Trainer = Annotated[Caller, Depends(_with_scope("train"))]
Distiller = Annotated[Caller, Depends(_with_scope("distill"))]
Generator = Annotated[Caller, Depends(_with_scope("generate"))]
Administrator = Annotated[Caller, Depends(_with_scope("admin"))]


def _operator(caller: AnyCaller) -> Caller:
    caller.require_operator()
    return caller


Operator = Annotated[Caller, Depends(_operator)]
"""Whoever runs the deployment; what it may see and do is in `core.operations`."""


async def _operator_session(server: Server, _: Operator) -> AsyncIterator[AsyncSession]:
    async with server.operator_sessions() as session, session.begin():
        yield session


OperatorSession = Annotated[AsyncSession, Depends(_operator_session, scope="function")]
"""A transaction that sees every tenant."""


def _acting(request: Request, caller: AnyCaller) -> Actor:
    return Actor(caller.key_id, request.state.request_id)


Acting = Annotated[Actor, Depends(_acting)]
"""Who is to be written down for what is done."""


def _transactions(server: Server, caller: AnyCaller) -> Transactions:
    return tenant_transactions(server.sessions, caller.tenant_id)


TenantTransactions = Annotated[Transactions, Depends(_transactions)]
"""For routes that wait or stream: a transaction for each look, none in between."""


async def _session(transactions: TenantTransactions) -> AsyncIterator[AsyncSession]:
    async with transactions() as session:
        yield session


# `scope="function"` ends the transaction when the route returns, before the answer is sent: what a client was told
# has been committed.
TenantSession = Annotated[AsyncSession, Depends(_session, scope="function")]
"""For all other routes: the request's one transaction."""


def draw_seed() -> int:
    """A seed for a job that asks for none."""
    return secrets.randbelow(SEEDS)
