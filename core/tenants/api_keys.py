"""API keys as their tenant manages them: the API's use cases, in the request's transaction, each written down.

The session carries the tenant (``core.db.engine.bind_tenant``); another tenant's key is not found.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime, timedelta

from sqlalchemy.ext.asyncio import AsyncSession

from core.db.paging import Page, read_page
from core.errors import Conflict, Invalid, NotFound
from core.ids import new_id
from core.operations.audit import Actor, note
from core.tenants import keys, statements
from core.tenants.models import ApiKey


def new_api_key(
    tenant_id: str,
    name: str,
    scopes: Iterable[str],
    *,
    expires_at: datetime | None = None,
    max_running: int | None = None,
) -> tuple[ApiKey, str]:
    """A row to be added, and the key, of which the row has only a hash; raises Invalid for an unknown scope."""
    wanted = set(scopes)
    if unknown := wanted - keys.SCOPES:
        raise Invalid(f"Unknown scopes: {', '.join(sorted(unknown))}.", param="scopes")
    key = keys.new_key()
    row = ApiKey(
        id=new_id("key"),
        tenant_id=tenant_id,
        name=name,
        hint=keys.hint(key),
        key_sha256=keys.digest(key),
        scopes=sorted(wanted),
        expires_at=expires_at,
        max_running=max_running,
    )
    return row, key


async def create_api_key(
    session: AsyncSession,
    actor: Actor,
    tenant_id: str,
    *,
    name: str,
    scopes: Iterable[str],
    expires_at: datetime | None = None,
    max_running: int | None = None,
) -> tuple[ApiKey, str]:
    """A new key and its row; the key is told this once. Raises Invalid for one that would have expired already."""
    row, key = new_api_key(tenant_id, name, scopes, expires_at=expires_at, max_running=max_running)
    session.add(row)
    await session.flush()
    await session.refresh(row)
    if row.expires_at is not None and row.expires_at <= row.created_at:
        raise Invalid("The time lies in the past.", param="expires_at")
    after = {"name": name, "scopes": row.scopes, "max_running": max_running, "expires_at": _told(row.expires_at)}
    note(session.sync_session, actor, "api_key.created", row.id, tenant_id=tenant_id, after=after)
    return row, key


async def get_api_key(session: AsyncSession, key_id: str) -> ApiKey:
    """The key; raises NotFound."""
    row = await session.scalar(statements.api_key_by_id(key_id))
    if row is None:
        raise NotFound(f"No API key {key_id}.", param="id")
    return row


async def list_api_keys(session: AsyncSession, *, after: str | None, before: str | None, limit: int) -> Page[ApiKey]:
    """A page of the keys, newest first, revoked ones among them; raises NotFound when a place's key is gone."""
    return await read_page(
        session, statements.api_keys_page, by_id=statements.api_key_by_id, after=after, before=before, limit=limit
    )


async def rotate_api_key(session: AsyncSession, actor: Actor, key_id: str, *, overlap: timedelta) -> tuple[ApiKey, str]:
    """A new key in the old one's place, with its id, scopes and caps; the old one works on for ``overlap``.

    Raises NotFound, or Conflict for a key that works no more.
    """
    row, key = await get_api_key(session, key_id), keys.new_key()
    values = {"key_id": key_id, "sha256": keys.digest(key), "hint": keys.hint(key), "overlap": overlap}
    if (await session.execute(statements.ROTATE_API_KEY, values)).one_or_none() is None:
        raise Conflict(f"API key {key_id} works no more: make another one.")
    before = {"hint": row.hint}
    await session.refresh(row)
    after = {"hint": row.hint, "previous_until": _told(row.previous_until)}
    note(session.sync_session, actor, "api_key.rotated", key_id, tenant_id=row.tenant_id, before=before, after=after)
    return row, key


async def revoke_api_key(session: AsyncSession, actor: Actor, key_id: str) -> None:
    """From now on neither the key works nor the one it replaced; what it submitted stays. Raises NotFound."""
    row = await get_api_key(session, key_id)
    if (await session.execute(statements.REVOKE_API_KEY, {"key_id": key_id})).one_or_none() is not None:
        note(session.sync_session, actor, "api_key.revoked", key_id, tenant_id=row.tenant_id, before={"name": row.name})


def _told(at: datetime | None) -> str | None:
    return None if at is None else at.isoformat()
