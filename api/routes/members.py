"""`/v1/members` and `/v1/invitations`: who belongs to the tenant, and as what."""

from __future__ import annotations

from fastapi import APIRouter, Request

from api.dependencies import Acting, Administrator, Server, TenantSession
from api.pagination import WantedPage, list_of
from api.schemas.common import ListOf
from api.schemas.members import AcceptInvitation, ChangeMember, CreateInvitation, Invitation, Member, NewInvitation
from core.db.transactions import tenant_transactions
from core.errors import SignInFailed
from core.members import invitations, membership, sessions

router = APIRouter(prefix="/v1", tags=["Tenancy"])


@router.get("/members")
async def list_members(_: Administrator, session: TenantSession, page: WantedPage) -> ListOf[Member]:
    """List the members, the latest first."""
    found = await membership.list_members(session, after=page.after, before=page.before, limit=page.limit)
    return list_of(found, Member.of)


@router.patch("/members/{user_id}")
async def change_member(
    user_id: str, body: ChangeMember, caller: Administrator, actor: Acting, session: TenantSession
) -> Member:
    """Give a member another role, from his next request on."""
    return Member.of(await membership.change_role(session, actor, caller, user_id, body.role))


@router.delete("/members/{user_id}", status_code=204)
async def remove_member(user_id: str, caller: Administrator, actor: Acting, session: TenantSession) -> None:
    """End a membership, and the member's sessions with it."""
    await membership.remove(session, actor, caller, user_id)


@router.post("/invitations", status_code=201)
async def create_invitation(
    body: CreateInvitation, caller: Administrator, actor: Acting, session: TenantSession
) -> NewInvitation:
    """Invite somebody. Hand on the answer's `token`: it is shown this once."""
    made = await invitations.invite(session, actor, caller, email=body.email, role=body.role)
    return NewInvitation.made(*made)


@router.get("/invitations")
async def list_invitations(_: Administrator, session: TenantSession, page: WantedPage) -> ListOf[Invitation]:
    """List the invitations that nobody has accepted, newest first."""
    found = await invitations.list_invitations(session, after=page.after, before=page.before, limit=page.limit)
    return list_of(found, Invitation.of)


@router.delete("/invitations/{invitation_id}", status_code=204)
async def withdraw_invitation(invitation_id: str, _: Administrator, actor: Acting, session: TenantSession) -> None:
    """Withdraw an invitation: its token works no more."""
    await invitations.withdraw(session, actor, invitation_id)


@router.post("/invitations/accept", status_code=201)
async def accept_invitation(body: AcceptInvitation, request: Request, server: Server) -> Member:
    """Become a member, by the token of an invitation; then sign in."""
    password = body.password.get_secret_value()
    async with server.looking() as connection:
        invited = await invitations.find(connection, body.token)
        account = await sessions.begin(connection, invited.email)
    if account.user_id is not None and not await server.is_password(account, password):
        raise SignInFailed(f"{invited.email} has an account already, with another password.", param="password")
    password_hash = account.password_hash or await server.hashed(password)
    async with tenant_transactions(server.sessions, invited.tenant_id)() as session:
        member = await invitations.accept(
            session,
            invited,
            body.token,
            name=body.name,
            password_hash=password_hash,
            request_id=request.state.request_id,
        )
        return Member.of(member)
