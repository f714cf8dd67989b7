"""What routes ask for by type: who calls, with which right, and the database as that tenant sees it."""

from __future__ import annotations

import secrets
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from typing import Annotated

import anyio
from anyio import CapacityLimiter
from fastapi import Depends, Request
from fastapi.security import APIKeyCookie, HTTPAuthorizationCredentials, HTTPBearer
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, AsyncSession, async_sessionmaker
from structlog.contextvars import bind_contextvars

from api.cookies import SESSION_COOKIE, check_origin
from api.errors import makes_job
from api.standing import Standing
from api.urls import Urls
from core.config import Settings
from core.db.transactions import Transactions, tenant_transactions
from core.errors import Limit, RateLimited, Unauthenticated
from core.files.decoding import Decoder
from core.jobs.acceptance import SEEDS
from core.jobs.submission import QueueLimits
from core.members import passwords
from core.members.sessions import Account, resume
from core.operations.audit import Actor
from core.signatures import Signer
from core.storage.s3 import ObjectStore
from core.tenants.authentication import Caller, authenticate
from core.tenants.rates import PolicyName, RatePolicy, whole_seconds
from core.tracing import stage
from core.webhooks.target_policy import TargetPolicy


@dataclass(frozen=True)
class Resources:
    """What one process of the API works with."""

    settings: Settings
    engine: AsyncEngine
    sessions: async_sessionmaker[AsyncSession]
    store: ObjectStore
    public_store: ObjectStore | None  # the same as clients reach it, if they do
    urls: Urls
    queue: QueueLimits
    webhook_targets: TargetPolicy
    operator_engine: AsyncEngine
    operator_sessions: async_sessionmaker[AsyncSession]
    decoder: Decoder
    decoders: CapacityLimiter  # pictures that it is given at once
    hashers: CapacityLimiter  # passwords being hashed at once: each takes 64 MiB
    signer: Signer

    @asynccontextmanager
    async def looking(self) -> AsyncIterator[AsyncConnection]:
        """A connection for single statements of no tenant, each committed by itself."""
        async with self.engine.connect() as connection:
            await connection.execution_options(isolation_level="AUTOCOMMIT")
            yield connection

    async def is_password(self, account: Account, password: str) -> bool:
        """Whether it is the account's; for no account it takes as long to say no."""
        return await anyio.to_thread.run_sync(passwords.matches, account.password_hash, password, limiter=self.hashers)

    async def hashed(self, password: str) -> str:
        """What is stored of a password."""
        return await anyio.to_thread.run_sync(passwords.hashed, password, limiter=self.hashers)

    rates: Mapping[PolicyName, RatePolicy]

    def rate_of(self, request: Request) -> RatePolicy:
        """The rate limit that a request counts for."""
        return self.rates["jobs" if makes_job(request.method, request.url.path) else "requests"]


def _resources(request: Request) -> Resources:
    resources = request.app.state.resources
    assert isinstance(resources, Resources)
    return resources


Server = Annotated[Resources, Depends(_resources)]

_UNCOUNTED = RatePolicy("requests", 0)  # a look that nobody asked for

bearer = HTTPBearer(auto_error=False, scheme_name="API key", description="A key such as `lk_live_...`.")
cookie = APIKeyCookie(
    name=SESSION_COOKIE, auto_error=False, scheme_name="Session", description="What `POST /v1/sessions` sets."
)


async def identify_caller(
    request: Request,
    server: Server,
    sent: Annotated[HTTPAuthorizationCredentials | None, Depends(bearer)],
    token: Annotated[str | None, Depends(cookie)],
) -> Caller:
    """Who calls, by a key or a session; raises Unauthenticated and RateLimited."""
    if sent is None and token is None:
        raise Unauthenticated("Send an API key, as in `Authorization: Bearer lk_live_...`.")
    with stage("authenticate"):
        caller = await _known(request, server, sent, token, server.rate_of(request))
    bind_contextvars(tenant_id=caller.tenant_id)
    request.state.standing = Standing(caller, partial(_known, request, server, sent, token, _UNCOUNTED))
    _check_rate(request, caller)
    return caller


async def _known(
    request: Request,
    server: Resources,
    sent: HTTPAuthorizationCredentials | None,
    token: str | None,
    rate: RatePolicy,
) -> Caller:
    async with server.looking() as connection:  # what a refused request took of its rate stays taken
        if sent is not None:
            return await authenticate(connection, sent.credentials, rate)
        assert token is not None
        check_origin(request, server.urls)
        return await resume(connection, token, rate)


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


AnyCaller = Annotated[Caller, Depends(identify_caller)]


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
    return Actor(caller.id, request.state.request_id)


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
