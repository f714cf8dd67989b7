"""Members of a tenant and their roles. Only an owner makes, changes or removes owners, and one of them stays."""

from __future__ import annotations

from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import Session

from core.db.paging import Page, read_page
from core.errors import Conflict, Forbidden, NotFound
from core.ids import new_id
from core.members import statements
from core.members.models import Membership
from core.members.roles import Role
from core.members.sessions import normalised
from core.operations.audit import Actor, note
from core.tenants.authentication import Caller
from core.tenants.models import Tenant


def check_may_make(caller: Caller, role: Role) -> None:
    """Raise Forbidden unless the caller may give or take that role."""
    if role is Role.OWNER and caller.role is not Role.OWNER:
        raise Forbidden("Only an owner who has signed in makes, changes or removes owners.")


async def list_members(session: AsyncSession, *, after: str | None, before: str | None, limit: int) -> Page[Membership]:
    """A page of the members, the latest first; raises NotFound when a place's member is gone."""
    return await read_page(
        session, statements.members_page, by_id=statements.member_by_id, after=after, before=before, limit=limit
    )


async def get_member(session: AsyncSession, user_id: str) -> Membership:
    """The member; raises NotFound."""
    member = await session.scalar(statements.member_by_id(user_id))
    if member is None:
        raise NotFound(f"No member {user_id}.", param="user_id")
    return member


async def change_role(session: AsyncSession, actor: Actor, caller: Caller, user_id: str, role: Role) -> Membership:
    """Give a member another role, from his next request on; raises NotFound, Forbidden or Conflict."""
    check_may_make(caller, role)
    member = await _get(session, caller, user_id, stays_owner=role is Role.OWNER)
    before = {"role": member.role}
    await session.execute(statements.CHANGE_ROLE, {"user_id": user_id, "role": role})
    await session.refresh(member)
    after = {"role": role}
    note(session.sync_session, actor, "member.changed", user_id, tenant_id=caller.tenant_id, before=before, after=after)
    return member


async def remove(session: AsyncSession, actor: Actor, caller: Caller, user_id: str) -> None:
    """End a membership and its sessions; raises NotFound, Forbidden or Conflict."""
    member = await _get(session, caller, user_id, stays_owner=False)
    before = {"email": member.user.email, "role": member.role}
    session.expunge(member)
    await session.execute(statements.REMOVE_MEMBER, {"user_id": user_id})
    note(session.sync_session, actor, "member.removed", user_id, tenant_id=caller.tenant_id, before=before)


async def _get(session: AsyncSession, caller: Caller, user_id: str, *, stays_owner: bool) -> Membership:
    owners = set((await session.execute(statements.LOCK_OWNERS)).scalars())
    member = await get_member(session, user_id)
    check_may_make(caller, Role(member.role))
    if owners == {user_id} and not stays_owner:
        raise Conflict("A tenant's last owner stays: make another one first.")
    return member


def put_user(
    session: Session, actor: Actor, tenant_id: str, email: str, *, role: Role, name: str, password_hash: str
) -> str:
    """What an operator does: a member with this role and password, whether he was a user before or not; his id.

    His sessions end. Raises NotFound.
    """
    if session.get(Tenant, tenant_id) is None:
        raise NotFound(f"No tenant {tenant_id}.", param="tenant")
    email = normalised(email)
    values = {"id": new_id("usr"), "email": email, "name": name, "hash": password_hash}
    user_id: str = session.execute(statements.PUT_USER, values).scalar_one()
    session.execute(statements.PUT_MEMBERSHIP, {"tenant_id": tenant_id, "user_id": user_id, "role": role})
    session.execute(statements.END_SESSIONS_OF, {"user_id": user_id})
    note(session, actor, "member.put", user_id, tenant_id=tenant_id, after={"email": email, "role": role})
    return user_id
