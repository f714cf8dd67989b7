"""Answers that are given again: kept in the transaction that made what they tell of.

A client's ``Idempotency-Key`` gives the same answer for a day. A client that sends no key but marks its retries gets
the answer to its first try: such requests are kept under a key made of who sent what.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from sqlalchemy.ext.asyncio import AsyncSession

from core.errors import IdempotencyInProgress, IdempotencyKeyReused
from core.idempotency import statements
from core.idempotency.models import IdempotencyKey
from core.tenants.authentication import Caller

_KEY_LIFETIME = timedelta(hours=24)
_RETRY_WINDOW = timedelta(minutes=15)


@dataclass(frozen=True)
class Reply:
    """An answer as it was first given."""

    status: int
    body: dict[str, Any]
    location: str | None = None


@dataclass(frozen=True)
class Identity:
    """What makes two requests the same. ``lifetime`` None: a first try without a key, which repeats nothing."""

    tenant_id: str
    route: str
    key: str
    body_sha256: str
    lifetime: timedelta | None


def identify(caller: Caller, *, route: str, body: bytes, key: str | None, is_retry: bool) -> Identity:
    """Which earlier request this one may repeat; ``key`` is the client's own."""
    body_sha256 = hashlib.sha256(body).hexdigest()
    if key is not None:
        return Identity(caller.tenant_id, route, f"given:{key}", body_sha256, _KEY_LIFETIME)
    lifetime = _RETRY_WINDOW if is_retry else None
    return Identity(caller.tenant_id, route, f"sent:{caller.id}:{body_sha256}", body_sha256, lifetime)


async def find(session: AsyncSession, identity: Identity) -> Reply | None:
    """The answer to give again, or None: then carry the request out, and ``keep`` the answer in this transaction.

    Until commit no twin is carried out beside it. Raises IdempotencyInProgress where one just is, and
    IdempotencyKeyReused where the key was used for another body.
    """
    name = f"{identity.tenant_id} {identity.route} {identity.key}"
    # First tries without a key may well be equal and meant: only a retry excludes them, and they it.
    lock = statements.TRY_LOCK_SHARED if identity.lifetime is None else statements.TRY_LOCK
    if not await session.scalar(lock, {"name": name}):
        raise IdempotencyInProgress("The same request is being handled at this moment.")
    if identity.lifetime is None:
        return None
    kept = await session.scalar(
        statements.find_reply(
            tenant_id=identity.tenant_id, route=identity.route, key=identity.key, younger_than=identity.lifetime
        )
    )
    return None if kept is None else _replayed(kept, identity)


def _replayed(kept: IdempotencyKey, identity: Identity) -> Reply:
    if kept.body_sha256 != identity.body_sha256:
        raise IdempotencyKeyReused("This idempotency key was used with another body.", param="Idempotency-Key")
    return Reply(kept.status, kept.body, kept.location)


async def keep(session: AsyncSession, identity: Identity, reply: Reply) -> None:
    """Give this answer to whoever sends the request again."""
    values = {
        "tenant_id": identity.tenant_id,
        "route": identity.route,
        "key": identity.key,
        "body_sha256": identity.body_sha256,
        "status": reply.status,
        "body": reply.body,
        "location": reply.location,
    }
    await session.execute(statements.keep_reply(values))
