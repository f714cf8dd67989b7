"""Invitations: a token that somebody hands on, and that makes whoever accepts it a member."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta

from sqlalchemy.ext.asyncio import AsyncConnection, AsyncSession

from core.db.paging import Page, read_page
from core.errors import Conflict, NotFound
from core.ids import new_id
from core.members import statements, tokens
from core.members.membership import check_may_make
from core.members.models import Invitation, Membership
from core.members.roles import Role
from core.members.sessions import normalised
from core.operations.audit import Actor, note
from core.tenants.authentication import Caller

LIFETIME = timedelta(days=7)


@dataclass(frozen=True)
class Invited:
    """What an invitation's token is for."""

    tenant_id: str
    email: str


async def invite(
    session: AsyncSession, actor: Actor, caller: Caller, *, email: str, role: Role
) -> tuple[Invitation, str]:
    """An invitation in place of an earlier one to that address, and its token, told this once.

    Raises Forbidden (only an owner makes owners) or Conflict (a member already).
    """
    check_may_make(caller, role)
    email = normalised(email)
    if await session.scalar(statements.member_by_email(email)) is not None:
        raise Conflict(f"{email} is a member already.")
    invitation_id, token = new_id("inv"), tokens.new_token("invitation")
    values = {"id": invitation_id, "tenant_id": caller.tenant_id, "email": email, "role": role}
    await session.execute(statements.INVITE, {**values, "sha256": tokens.digest(token), "lifetime": LIFETIME})
    after = {"email": email, "role": role}
    note(session.sync_session, actor, "member.invited", invitation_id, tenant_id=caller.tenant_id, after=after)
    return await _get(session, invitation_id), token


async def list_invitations(
    session: AsyncSession, *, after: str | None, before: str | None, limit: int
) -> Page[Invitation]:
    """A page of what is still open, newest first; raises NotFound when a place's invitation is gone."""
    return await read_page(
        session,
        statements.invitations_page,
        by_id=statements.invitation_by_id,
        after=after,
        before=before,
        limit=limit,
    )


async def withdraw(session: AsyncSession, actor: Actor, invitation_id: str) -> None:
    """The token works no more; raises NotFound."""
    row = (await session.execute(statements.UNINVITE, {"id": invitation_id})).one_or_none()
    if row is None:
        raise _missing(invitation_id)
    before = {"email": row.email, "role": row.role}
    note(session.sync_session, actor, "invitation.withdrawn", invitation_id, tenant_id=row.tenant_id, before=before)


async def find(connection: AsyncConnection, token: str) -> Invited:
    """What the token is for; raises NotFound."""
    row = (await connection.execute(statements.RESOLVE_INVITATION, {"sha256": tokens.digest(token)})).one_or_none()
    if row is None:
        raise NotFound("No such invitation is open.", param="token")
    return Invited(row.tenant_id, row.email)


async def accept(
    session: AsyncSession, invited: Invited, token: str, *, name: str, password_hash: str, request_id: str | None
) -> Membership:
    """Make whoever has the token a member, and a user if he is none; raises Conflict.

    The session is bound to the tenant that invites. Who is a user already keeps his name and password, and
    ``password_hash`` is that of the password he gave: an account that has another one by now is not let in.
    """
    values = {"sha256": tokens.digest(token), "user_id": new_id("usr"), "name": name, "hash": password_hash}
    row = (await session.execute(statements.ACCEPT_INVITATION, values)).one_or_none()
    if row is None:
        raise Conflict("The invitation was accepted, or the account of its address changed, at this very moment.")
    after = {"email": invited.email, "role": row.role}
    actor = Actor(row.user_id, request_id)
    note(session.sync_session, actor, "member.joined", row.user_id, tenant_id=invited.tenant_id, after=after)
    return (await session.scalars(statements.member_by_id(row.user_id))).one()


async def _get(session: AsyncSession, invitation_id: str) -> Invitation:
    found = await session.scalar(statements.invitation_by_id(invitation_id))
    if found is None:
        raise _missing(invitation_id)
    return found


def _missing(invitation_id: str) -> NotFound:
    return NotFound(f"No invitation {invitation_id}.", param="id")
