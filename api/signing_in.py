"""Signing in by email address and password, for the API and for pages alike."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta

from fastapi import Request, Response

from api.cookies import check_origin, set_session
from api.dependencies import Resources
from core.db.transactions import tenant_transactions
from core.errors import SignInFailed
from core.members import sessions
from core.members.sessions import Started


@dataclass(frozen=True)
class SignedIn:
    """Whose session began, and where."""

    started: Started
    tenant_id: str
    user_id: str
    lifetime: timedelta

    def keep(self, response: Response, server: Resources) -> None:
        """Have the browser send it along from now on."""
        set_session(response, server.urls, self.started.token, max_age=int(self.lifetime.total_seconds()))


async def sign_in(request: Request, server: Resources, *, email: str, password: str, tenant: str | None) -> SignedIn:
    """Begin a session; raises SignInFailed, TenantNotChosen, TooManyTries, and Forbidden for another site's page."""
    check_origin(request, server.urls)
    async with server.looking() as connection:
        account = await sessions.begin(connection, email)
    if not await server.is_password(account, password) or account.user_id is None:
        raise SignInFailed("The email address or the password is wrong.")
    async with server.looking() as connection:
        tenant_id = await sessions.choose_tenant(connection, account.user_id, tenant)
    lifetime = timedelta(days=server.settings.session_days)
    async with tenant_transactions(server.sessions, tenant_id)() as session:
        started = await sessions.start(
            session, tenant_id, account.user_id, lifetime=lifetime, request_id=request.state.request_id
        )
    return SignedIn(started, tenant_id, account.user_id, lifetime)
