"""SQL of tenants and their keys."""

from __future__ import annotations

from collections.abc import Iterable

from sqlalchemy import Select, select, text

from core.tenants.models import Tenant

# The one look across tenants: a function of the owner, for nobody's tenant is known before its key is.
RESOLVE_API_KEY = text("SELECT key_id, tenant_id, scopes, is_operator FROM resolve_api_key(:sha256)")


def safety_policies(tenant_ids: Iterable[str]) -> Select[str, str]:
    """Ids and safety policies of tenants."""
    return select(Tenant.id, Tenant.safety).where(Tenant.id.in_(list(tenant_ids)))
