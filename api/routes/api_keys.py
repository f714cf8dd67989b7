"""`/v1/api_keys`: keys of the tenant: making, rotating and revoking them."""

from __future__ import annotations

from datetime import timedelta

from fastapi import APIRouter, Response

from api.dependencies import Acting, Administrator, Server, TenantSession
from api.pagination import WantedPage, list_of
from api.schemas.api_keys import ApiKey, CreateApiKey, NewApiKey, RotateApiKey
from api.schemas.common import ListOf
from core.tenants import api_keys

router = APIRouter(prefix="/v1/api_keys", tags=["Tenancy"])


@router.post("", status_code=201)
async def create_api_key(
    body: CreateApiKey,
    *,
    caller: Administrator,
    actor: Acting,
    session: TenantSession,
    server: Server,
    response: Response,
) -> NewApiKey:
    """Make a key. Keep the answer's `key`: it is shown this once."""
    row, key = await api_keys.create_api_key(
        session,
        actor,
        caller.tenant_id,
        name=body.name,
        scopes=body.scopes,
        expires_at=body.expires_at,
        max_running=body.max_running,
    )
    response.headers["Location"] = server.urls.api_key(row.id)
    return NewApiKey.made(row, key)


@router.get("")
async def list_api_keys(_: Administrator, session: TenantSession, page: WantedPage) -> ListOf[ApiKey]:
    """List the keys, newest first, revoked ones too."""
    found = await api_keys.list_api_keys(session, after=page.after, before=page.before, limit=page.limit)
    return list_of(found, ApiKey.of)


@router.get("/{key_id}")
async def get_api_key(key_id: str, _: Administrator, session: TenantSession) -> ApiKey:
    """Get a key, without the key itself."""
    return ApiKey.of(await api_keys.get_api_key(session, key_id))


@router.post("/{key_id}/rotate")
async def rotate_api_key(
    key_id: str, body: RotateApiKey, _: Administrator, actor: Acting, session: TenantSession
) -> NewApiKey:
    """Put a new key in the place of an old one, which works on for a while. Everything else of it stays."""
    overlap = timedelta(seconds=body.overlap_seconds)
    return NewApiKey.made(*await api_keys.rotate_api_key(session, actor, key_id, overlap=overlap))


@router.delete("/{key_id}", status_code=204)
async def revoke_api_key(key_id: str, _: Administrator, actor: Acting, session: TenantSession) -> None:
    """Revoke a key at once. Its jobs go on."""
    await api_keys.revoke_api_key(session, actor, key_id)
