"""SQL of tenants and their keys."""

from __future__ import annotations

from collections.abc import Iterable

from sqlalchemy import BigInteger, Interval, Select, Text, bindparam, select, text

from core.db.paging import Place, nearest_first
from core.tenants.models import ApiKey, Tenant

# The one look across tenants: a function of the owner, for nobody's tenant is known before its key is.
# With it, a token is taken from one of the tenant's buckets: one round trip for both.
RESOLVE_API_KEY = text("""
    SELECT k.key_id, k.tenant_id, k.scopes, k.is_operator, coalesce(t.taken, true) AS taken, t.full_in
    FROM resolve_api_key(:sha256) k
    LEFT JOIN LATERAL take_token(k.tenant_id, :policy, :quota, :period) t ON :quota > 0
""").bindparams(
    bindparam("policy", type_=Text()), bindparam("quota", type_=BigInteger()), bindparam("period", type_=Interval())
)

RATES = text("SELECT policy, full_at - lockstep_now() AS full_in FROM rate_buckets WHERE tenant_id = :tenant_id")

MAX_RUNNING = text("SELECT max_running FROM tenant_pools WHERE tenant_id = :tenant_id AND pool = :pool")


def safety_policies(tenant_ids: Iterable[str]) -> Select[str, str]:
    """Ids and safety policies of tenants."""
    return select(Tenant.id, Tenant.safety).where(Tenant.id.in_(list(tenant_ids)))


def api_keys_page(*, after: Place | None, before: Place | None, limit: int) -> Select[ApiKey]:
    """Keys, nearest to a place first."""
    return nearest_first(select(ApiKey), ApiKey.created_at, ApiKey.id, after=after, before=before, limit=limit)


def api_key_by_id(key_id: str) -> Select[ApiKey]:
    """One key."""
    return select(ApiKey).where(ApiKey.id == key_id)


# What it was works on for a while; a key that an earlier rotation left working ends here.
ROTATE_API_KEY = text("""
    UPDATE api_keys SET previous_sha256 = key_sha256, previous_until = lockstep_now() + :overlap,
        key_sha256 = :sha256, hint = :hint
    WHERE id = :key_id AND revoked_at IS NULL AND (expires_at IS NULL OR expires_at > lockstep_now())
    RETURNING id
""").bindparams(bindparam("overlap", type_=Interval()))

REVOKE_API_KEY = text("""
    UPDATE api_keys SET revoked_at = lockstep_now() WHERE id = :key_id AND revoked_at IS NULL RETURNING id
""")
