"""Requests that make something: carried out once, however often they are sent, and answered in one way."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, replace
from typing import Annotated, Any

from fastapi import Depends, Header, Request
from fastapi.responses import JSONResponse
from pydantic import BaseModel
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncSession

from api.deadlines import CancelAfter
from api.dependencies import AnyCaller, Resources, Server, TenantTransactions
from api.errors import is_final, problem_response, trouble_of
from api.jobs import show
from api.schemas.jobs import shown
from api.waiting import Wait, applied, hold
from core.db.transactions import OutcomeUnknown, Transactions
from core.errors import LockstepError
from core.idempotency import replies
from core.idempotency.replies import Identity, Reply
from core.jobs.models import Job
from core.tenants.authentication import Caller

Make = Callable[[AsyncSession], Awaitable[Reply]]
Accept = Callable[[AsyncSession], Awaitable[Job]]

_REPLAYED = {"Idempotent-Replayed": "true"}


@dataclass(frozen=True)
class Creation:
    """One request that makes something."""

    request: Request
    server: Resources
    caller: Caller
    transactions: Transactions
    key: str | None
    is_retry: bool

    async def answer(self, body: BaseModel, make: Make) -> JSONResponse:
        """Run ``make`` unless the request is a repetition, and tell what came of it."""
        reply, headers = await self.reply(body, make)
        return self.response(reply, headers)

    async def repeated(self, body: BaseModel) -> JSONResponse | None:
        """What was answered before, for those who have work to do before they can make anything."""
        identity = self._identity(body)
        if identity.lifetime is None:
            return None
        async with self.transactions() as session:
            kept = await replies.find(session, identity)
        return None if kept is None else self.response(kept, _REPLAYED)

    async def reply(self, body: BaseModel, make: Make) -> tuple[Reply, Mapping[str, str]]:
        """The answer, kept in the transaction that made what it tells of, and its headers."""
        identity = self._identity(body)
        async with self.transactions() as session:
            kept = await replies.find(session, identity)
            reply = kept or await self._carry_out(session, make)
            if kept is None:
                await replies.keep(session, identity, reply)
        return reply, {} if kept is None else _REPLAYED

    def _identity(self, body: BaseModel) -> Identity:
        return replies.identify(
            self.caller,
            route=f"POST {self.request.url.path}",
            body=body.model_dump_json(by_alias=True).encode(),
            key=self.key,
            is_retry=self.is_retry,
        )

    async def _carry_out(self, session: AsyncSession, make: Make) -> Reply:
        try:
            async with session.begin_nested():  # an error is kept, what it left half-done is not
                return await make(session)
        except LockstepError as error:
            if not is_final(error):
                raise
            trouble = trouble_of(error)
            return Reply(trouble.status, trouble.body(self.request.scope["state"]["request_id"]))

    def response(self, reply: Reply, headers: Mapping[str, str]) -> JSONResponse:
        """The answer as it is sent."""
        if reply.status >= 400:
            return problem_response(reply.body, method="POST", path=self.request.url.path, headers=headers)
        return JSONResponse(reply.body, status_code=reply.status, headers={**headers, "Location": reply.location or ""})


@dataclass(frozen=True)
class JobCreation:
    """One request for a job, which the client may prefer to wait for."""

    creation: Creation
    wait: Wait
    cancel_after: CancelAfter

    async def answer(self, body: BaseModel, accept: Accept) -> JSONResponse:
        """Run ``accept`` unless the request is a repetition; the job and the kept answer are one transaction."""

        async def make(session: AsyncSession) -> Reply:
            job = await accept(session)
            return Reply(201, await self._shown(session, job), location=self.creation.server.urls.job(job))

        reply, headers = await self.creation.reply(body, make)
        if self.wait is not None and reply.status < 400:
            # The job exists: whatever befalls the database now, the answer must not be that it may not.
            with contextlib.suppress(SQLAlchemyError, OutcomeUnknown):
                job = await hold(self.creation.transactions, reply.body["id"], self.wait)
                async with self.creation.transactions() as session:
                    reply = replace(reply, body=await self._shown(session, job))
                headers = {**headers, **applied(self.wait)}
        return self.creation.response(reply, headers)

    async def _shown(self, session: AsyncSession, job: Job) -> dict[str, Any]:
        wire = await show(session, job, shown, self.creation.server.urls)
        return wire.model_dump(mode="json", by_alias=True)


def _creation(  # noqa: PLR0917 - FastAPI passes them by name
    request: Request,
    server: Server,
    caller: AnyCaller,
    transactions: TenantTransactions,
    idempotency_key: Annotated[
        str | None,
        Header(
            alias="Idempotency-Key",
            min_length=1,
            max_length=255,
            description="Repeating a request under one key gives its first answer, for 24 hours.",
        ),
    ] = None,
    x_stainless_retry_count: Annotated[str | None, Header(include_in_schema=False)] = None,
) -> Creation:
    is_retry = re.fullmatch(r"0*[1-9]\d*", x_stainless_retry_count or "") is not None
    return Creation(request, server, caller, transactions, idempotency_key, is_retry)


New = Annotated[Creation, Depends(_creation)]


def _job_creation(creation: New, wait: Wait, cancel_after: CancelAfter) -> JobCreation:
    return JobCreation(creation, wait, cancel_after)


NewJob = Annotated[JobCreation, Depends(_job_creation)]
