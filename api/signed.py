"""Addresses that carry their own permission, as ``?sig=``, in place of a key."""

from __future__ import annotations

from datetime import timedelta
from typing import Annotated

from fastapi import Depends, Query, Request
from fastapi.security import HTTPAuthorizationCredentials
from sqlalchemy.ext.asyncio import AsyncSession

from api.dependencies import Resources, Server, bearer, cookie, identify_caller
from core.db.statements import NOW
from core.db.transactions import Transactions, tenant_transactions
from core.errors import UrlExpired
from core.signatures import Permit

Signature = Annotated[
    str | None,
    Query(alias="sig", max_length=500, description="Comes with a signed address, and stands for a key."),
]


def reading(file_id: str) -> str:
    """What is signed to let somebody read a file's bytes."""
    return f"read {file_id}"


async def permit(session: AsyncSession, tenant_id: str, lifetime: timedelta) -> Permit:
    """A permit from now on, by the database's clock."""
    now = (await session.execute(NOW)).scalar_one()
    return Permit(tenant_id, (now + lifetime).replace(microsecond=0))


async def permitted(server: Resources, act: str, signature: str) -> Transactions:
    """Transactions of the tenant for which the act was signed; raises SignatureInvalid and UrlExpired."""
    signed = server.signer.read(act, signature)
    async with server.looking() as connection:
        if (await connection.execute(NOW)).scalar_one() >= signed.until:
            raise UrlExpired(f"The address held until {signed.until.isoformat()}.", param="sig")
    return tenant_transactions(server.sessions, signed.tenant_id)


async def _readable(  # noqa: PLR0917 - FastAPI passes them by name
    file_id: str,
    request: Request,
    server: Server,
    sent: Annotated[HTTPAuthorizationCredentials | None, Depends(bearer)],
    token: Annotated[str | None, Depends(cookie)],
    signature: Signature = None,
) -> Transactions:
    if signature is not None:
        return await permitted(server, reading(file_id), signature)
    caller = await identify_caller(request, server, sent, token)
    caller.require("read")
    return tenant_transactions(server.sessions, caller.tenant_id)


ReadableFile = Annotated[Transactions, Depends(_readable)]
"""Transactions of whoever may read the file of the path: by a signature of its address, or else by a key."""
