"""SQL of tenants and their keys."""

from __future__ import annotations

from collections.abc import Iterable

from sqlalchemy import BigInteger, Interval, Select, Text, bindparam, select, text

from core.tenants.models import Tenant

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
