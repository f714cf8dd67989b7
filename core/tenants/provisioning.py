"""What an operator does for a new customer: a tenant and its first key."""

from __future__ import annotations

from sqlalchemy.orm import Session

from core.errors import Invalid, NotFound
from core.ids import new_id
from core.tenants import keys
from core.tenants.models import ApiKey, Tenant


def create_tenant(session: Session, name: str) -> Tenant:
    """A tenant without keys."""
    tenant = Tenant(id=new_id("ten"), name=name)
    session.add(tenant)
    session.flush()
    return tenant


def create_key(session: Session, tenant_id: str, name: str, scopes: frozenset[str]) -> str:
    """A new key of the tenant, returned this once; raises NotFound or Invalid (an unknown scope)."""
    if unknown := scopes - keys.SCOPES:
        raise Invalid(f"Unknown scopes: {', '.join(sorted(unknown))}.", param="scopes")
    if session.get(Tenant, tenant_id) is None:
        raise NotFound(f"No tenant {tenant_id}.", param="tenant")
    key = keys.new_key()
    session.add(
        ApiKey(
            id=new_id("key"),
            tenant_id=tenant_id,
            name=name,
            hint=keys.hint(key),
            key_sha256=keys.digest(key),
            scopes=sorted(scopes),
        )
    )
    session.flush()
    return key
