"""Requests that make a job: carried out once, however often they are sent, and answered in one way."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Annotated, Any

from fastapi import Depends, Header, Request
from fastapi.responses import JSONResponse
from pydantic import BaseModel
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncSession

from api.dependencies import AnyCaller, Resources, Server, TenantTransactions
from api.errors import is_final, problem_response, trouble_of
from api.jobs import show
from api.schemas.jobs import shown
from api.waiting import Wait, applied, hold
from core.db.transactions import OutcomeUnknown, Transactions
from core.errors import LockstepError
from core.idempotency import replies
from core.idempotency.replies import Reply
from core.jobs.models import Job
from core.tenants.authentication import Caller

Accept = Callable[[AsyncSession], Awaitable[Job]]


@dataclass(frozen=True)
class JobCreation:
    """One request for a job."""

    request: Request
    server: Resources
    caller: Caller
    transactions: Transactions
    wait: Wait
    key: str | None
    is_retry: bool

    async def answer(self, body: BaseModel, accept: Accept) -> JSONResponse:
        """Run ``accept`` unless the request is a repetition; the job and the kept answer are one transaction."""
        identity = replies.identify(
            self.caller,
            route=f"POST {self.request.url.path}",
            body=body.model_dump_json(by_alias=True).encode(),
            key=self.key,
            is_retry=self.is_retry,
        )
        async with self.transactions() as session:
            kept = await replies.find(session, identity)
            reply = kept or await self._carry_out(session, accept)
            if kept is None:
                await replies.keep(session, identity, reply)
        headers = {} if kept is None else {"Idempotent-Replayed": "true"}
        if reply.status >= 400:
            return problem_response(reply.body, method="POST", path=self.request.url.path, headers=headers)
        return await self._created(reply, headers)

    async def _carry_out(self, session: AsyncSession, accept: Accept) -> Reply:
        try:
            async with session.begin_nested():  # an error is kept, what it left half-done is not
                job = await accept(session)
                body = await self._shown(session, job)
        except LockstepError as error:
            if not is_final(error):
                raise
            trouble = trouble_of(error)
            return Reply(trouble.status, trouble.body(self.request.scope["state"]["request_id"]))
        return Reply(201, body, location=self.server.urls.job(job))

    async def _created(self, reply: Reply, headers: dict[str, str]) -> JSONResponse:
        body = reply.body
        if self.wait is not None:
            # The job exists: whatever befalls the database now, the answer must not be that it may not.
            with contextlib.suppress(SQLAlchemyError, OutcomeUnknown):
                job = await hold(self.transactions, body["id"], self.wait)
                async with self.transactions() as session:
                    body = await self._shown(session, job)
                headers |= applied(self.wait)
        return JSONResponse(body, status_code=reply.status, headers=headers | {"Location": reply.location or ""})

    async def _shown(self, session: AsyncSession, job: Job) -> dict[str, Any]:
        wire = await show(session, job, shown, self.server.urls)
        return wire.model_dump(mode="json", by_alias=True)


def _creation(  # noqa: PLR0917 - FastAPI passes them by name
    request: Request,
    server: Server,
    caller: AnyCaller,
    transactions: TenantTransactions,
    wait: Wait,
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
) -> JobCreation:
    is_retry = re.fullmatch(r"0*[1-9]\d*", x_stainless_retry_count or "") is not None
    return JobCreation(request, server, caller, transactions, wait, idempotency_key, is_retry)


NewJob = Annotated[JobCreation, Depends(_creation)]
