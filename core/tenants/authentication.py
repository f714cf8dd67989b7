"""Who is calling: an API key, resolved to its tenant and its scopes."""

from __future__ import annotations

from dataclasses import dataclass

from sqlalchemy.ext.asyncio import AsyncConnection

from core.errors import Forbidden, Unauthenticated
from core.tenants import keys, statements
from core.tenants.rates import RatePolicy, RateStanding


@dataclass(frozen=True)
class Caller:
    """A tenant, by one of its keys."""

    tenant_id: str
    key_id: str
    scopes: frozenset[str]
    is_operator: bool = False
    rate: RateStanding | None = None  # none: no limit

    def may(self, scope: str) -> bool:
        """Whether the key has the scope; ``admin`` includes every other."""
        return bool(self.scopes & {scope, "admin"})

    def require(self, scope: str) -> None:
        """Raise Forbidden unless the key has the scope."""
        if not self.may(scope):
            raise Forbidden(f"This needs the scope {scope!r}; the key has {', '.join(sorted(self.scopes)) or 'none'}.")

    def require_operator(self) -> None:
        """Raise Forbidden unless this is an operator's key: one with the scope ``admin`` of a tenant of operators."""
        self.require("admin")
        if not self.is_operator:
            raise Forbidden("This is for operators of the deployment.")


async def authenticate(connection: AsyncConnection, key: str, policy: RatePolicy) -> Caller:
    """The caller whose key this is, after one request by this policy.

    Raises Unauthenticated for a malformed, unknown or revoked key.
    """
    if not keys.is_well_formed(key):
        raise Unauthenticated("The API key is not well-formed: part of it is missing or mistyped.")
    asked = {"sha256": keys.digest(key), "policy": policy.name, "quota": policy.quota, "period": policy.period}
    row = (await connection.execute(statements.RESOLVE_API_KEY, asked)).one_or_none()
    if row is None:
        raise Unauthenticated("The API key is unknown or revoked.")
    rate = RateStanding(policy, row.taken, row.full_in) if policy.quota else None
    return Caller(row.tenant_id, row.key_id, frozenset(row.scopes), row.is_operator, rate)
