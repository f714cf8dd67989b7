"""Signing in and out.

The password is checked between ``begin`` and ``choose_tenant``, in a thread and outside of any transaction. Both take a
connection that commits each statement: a try that failed has been made.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlalchemy.ext.asyncio import AsyncConnection, AsyncSession

from core.errors import SignInFailed, TenantNotChosen, TooManyTries, Unauthenticated
from core.ids import new_id
from core.members import statements, tokens
from core.members.roles import SCOPES, Role
from core.operations.audit import Actor, note
from core.tenants.authentication import Caller
from core.tenants.rates import RatePolicy, RateStanding

MOST_TRIES = 10
TRIES_WITHIN = timedelta(minutes=15)


@dataclass(frozen=True)
class Account:
    """Whom an address belongs to, if anybody."""

    user_id: str | None
    password_hash: str | None


@dataclass(frozen=True)
class Started:
    """A session that has begun; its token is told this once."""

    id: str
    token: str
    expires_at: datetime


async def begin(connection: AsyncConnection, email: str) -> Account:
    """Count a try to sign in; raises TooManyTries."""
    values = {"email": normalised(email), "most": MOST_TRIES, "within": TRIES_WITHIN}
    row = (await connection.execute(statements.BEGIN_SIGN_IN, values)).one()
    if not row.allowed:
        minutes = int(TRIES_WITHIN.total_seconds() // 60)
        raise TooManyTries(f"{MOST_TRIES} tries in {minutes} minutes are enough: try again later.")
    return Account(row.user_id, row.password_hash)


async def choose_tenant(connection: AsyncConnection, user_id: str, wanted: str | None) -> str:
    """The tenant to sign in to, after the password was right; raises TenantNotChosen or SignInFailed."""
    rows = (await connection.execute(statements.MEMBERSHIPS_OF, {"user_id": user_id})).all()
    found: dict[str, str] = {row.tenant_id: row.tenant_name for row in rows}
    if wanted is None and len(found) > 1:
        listed = ", ".join(f"{tenant_id} ({name})" for tenant_id, name in found.items())
        raise TenantNotChosen(f"You belong to several tenants: {listed}.", param="tenant")
    chosen = next(iter(found), None) if wanted is None else wanted
    if chosen is None or chosen not in found:
        raise SignInFailed("You are no member of that tenant.", param="tenant")
    return chosen


async def start(
    session: AsyncSession, tenant_id: str, user_id: str, *, lifetime: timedelta, request_id: str | None
) -> Started:
    """A session of a member in the tenant that ``session`` is bound to."""
    session_id, token = new_id("ses"), tokens.new_token("session")
    values = {"id": session_id, "tenant_id": tenant_id, "user_id": user_id, "sha256": tokens.digest(token)}
    expires_at = (await session.execute(statements.START_SESSION, {**values, "lifetime": lifetime})).scalar_one()
    note(session.sync_session, Actor(user_id, request_id), "session.started", session_id, tenant_id=tenant_id)
    return Started(session_id, token, expires_at)


async def resume(connection: AsyncConnection, token: str, policy: RatePolicy) -> Caller:
    """The caller whose session this is, after one request by this policy; raises Unauthenticated."""
    asked = {"sha256": tokens.digest(token), "policy": policy.name, "quota": policy.quota, "period": policy.period}
    row = (await connection.execute(statements.RESOLVE_SESSION, asked)).one_or_none()
    if row is None:
        raise Unauthenticated("The session has ended: sign in again.")
    role = Role(row.role)
    rate = RateStanding.of(policy, row)
    return Caller(row.tenant_id, None, SCOPES[role], row.is_operator, user_id=row.user_id, role=role, rate=rate)


async def end(session: AsyncSession, actor: Actor, token: str) -> None:
    """Sign out."""
    row = (await session.execute(statements.END_SESSION, {"sha256": tokens.digest(token)})).one_or_none()
    if row is not None:
        note(session.sync_session, actor, "session.ended", row.id, tenant_id=row.tenant_id)


async def change_password(session: AsyncSession, actor: Actor, caller: Caller, token: str, password_hash: str) -> None:
    """Give the user another password, after the old one was right; only the session of ``token`` goes on."""
    values = {"user_id": caller.user_id, "hash": password_hash, "kept": tokens.digest(token)}
    await session.execute(statements.CHANGE_PASSWORD, values)
    note(session.sync_session, actor, "member.password_changed", caller.id, tenant_id=caller.tenant_id)


def normalised(email: str) -> str:
    """The form in which addresses are compared."""
    return email.strip().lower()
