"""`/v1/sessions`: signing in for pages, and out."""

from __future__ import annotations

from fastapi import APIRouter, Request, Response

from api import signing_in
from api.cookies import SESSION_COOKIE, clear_session
from api.dependencies import Acting, AnyCaller, Server, TenantSession
from api.schemas.members import ChangePassword, Session, SignIn, WhoAmI
from core.db.transactions import tenant_transactions
from core.errors import Forbidden, SignInFailed
from core.members import membership, sessions

router = APIRouter(prefix="/v1/sessions", tags=["Tenancy"])


@router.post("", status_code=201)
async def sign_in(body: SignIn, request: Request, server: Server, response: Response) -> Session:
    """Sign in: the answer sets a cookie that does what a key does, as far as your role goes."""
    signed_in = await signing_in.sign_in(
        request, server, email=body.email, password=body.password.get_secret_value(), tenant=body.tenant
    )
    signed_in.keep(response, server)
    return Session(
        id=signed_in.started.id,
        tenant_id=signed_in.tenant_id,
        user_id=signed_in.user_id,
        expires_at=signed_in.started.expires_at,
    )


@router.get("/current")
async def who_am_i(caller: AnyCaller) -> WhoAmI:
    """Say who calls, by a session or by a key."""
    return WhoAmI(
        tenant_id=caller.tenant_id,
        key_id=caller.key_id,
        user_id=caller.user_id,
        role=caller.role,
        scopes=sorted(caller.scopes),
    )


@router.delete("/current", status_code=204)
async def sign_out(
    _: AnyCaller, request: Request, actor: Acting, session: TenantSession, server: Server, response: Response
) -> None:
    """Sign out. A key cannot: revoke it."""
    await sessions.end(session, actor, request.cookies.get(SESSION_COOKIE, ""))
    clear_session(response, server.urls)


@router.put("/current/password", status_code=204)
async def change_password(
    body: ChangePassword, request: Request, caller: AnyCaller, actor: Acting, server: Server
) -> None:
    """Change your password. Your other sessions end, in all tenants."""
    if caller.user_id is None:
        raise Forbidden("A key has no password: sign in.")
    transactions = tenant_transactions(server.sessions, caller.tenant_id)
    async with transactions() as session:
        email = (await membership.get_member(session, caller.user_id)).user.email
    async with server.looking() as connection:
        account = await sessions.begin(connection, email)
    if not await server.is_password(account, body.password.get_secret_value()):
        raise SignInFailed("The password is wrong.", param="password")
    password_hash = await server.hashed(body.new_password.get_secret_value())
    token = request.cookies[SESSION_COOKIE]
    async with transactions() as session:
        await sessions.change_password(session, actor, caller, token, password_hash)
