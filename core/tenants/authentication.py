"""Who is calling: an API key or a signed-in user, resolved to a tenant and scopes."""

from __future__ import annotations

from dataclasses import dataclass

from sqlalchemy.ext.asyncio import AsyncConnection

from core.errors import Forbidden, Unauthenticated
from core.members.roles import Role
from core.tenants import keys, statements
from core.tenants.rates import RatePolicy, RateStanding


@dataclass(frozen=True)
class Caller:
    """A tenant, by one of its keys or one of its members."""

    tenant_id: str
    key_id: str | None
    scopes: frozenset[str]
    is_operator: bool = False
    user_id: str | None = None  # of whoever has signed in
    role: Role | None = None

    @property
    def id(self) -> str:
        """The id of the key or the user."""
        known = self.key_id or self.user_id
        assert known is not None
        return known

    rate: RateStanding | None = None  # none: no limit

    def may(self, scope: str) -> bool:
        """Whether the caller has the scope; ``admin`` includes every other."""
        return bool(self.scopes & {scope, "admin"})

    def require(self, scope: str) -> None:
        """Raise Forbidden unless the caller has the scope."""
        if not self.may(scope):
            known = "the key" if self.role is None else f"the role {self.role!s}"
            raise Forbidden(f"This needs the scope {scope!r}; {known} has {', '.join(sorted(self.scopes)) or 'none'}.")

    def require_operator(self) -> None:
        """Raise Forbidden unless this is an operator: somebody with the scope ``admin`` in a tenant of operators."""
        self.require("admin")
        if not self.is_operator:
            raise Forbidden("This is for operators of the deployment.")


async def authenticate(connection: AsyncConnection, key: str, policy: RatePolicy) -> Caller:
    """The caller whose key this is, after one request by this policy.

    Raises Unauthenticated for a malformed, unknown, expired or revoked key.
    """
    if not keys.is_well_formed(key):
        raise Unauthenticated("The API key is not well-formed: part of it is missing or mistyped.")
    asked = {"sha256": keys.digest(key), "policy": policy.name, "quota": policy.quota, "period": policy.period}
    row = (await connection.execute(statements.RESOLVE_API_KEY, asked)).one_or_none()
    if row is None:
        raise Unauthenticated("The API key is unknown, expired or revoked.")
    return Caller(row.tenant_id, row.key_id, frozenset(row.scopes), row.is_operator, rate=RateStanding.of(policy, row))
