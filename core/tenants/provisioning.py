"""What an operator does for a customer: a tenant, its keys, and how its pictures are judged."""

from __future__ import annotations

from sqlalchemy.orm import Session

from core.errors import Invalid, NotFound
from core.ids import new_id
from core.tenants import keys
from core.tenants.models import ApiKey, Tenant
from core.tenants.safety import SafetyPolicy


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
    _get(session, tenant_id)
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


def make_operator(session: Session, tenant_id: str, *, is_operator: bool = True) -> None:
    """Let a tenant's administrators run the deployment, or no longer; raises NotFound."""
    _get(session, tenant_id).is_operator = is_operator


def set_safety(session: Session, tenant_id: str, policy: SafetyPolicy) -> None:
    """From the next batch on, judge the tenant's pictures by this policy; raises NotFound."""
    _get(session, tenant_id).safety = policy


def set_retention(
    session: Session, tenant_id: str, *, jobs: int | None = None, events: int | None = None, files: int | None = None
) -> None:
    """How many days the tenant's ended jobs, its events and what its jobs made are kept; raises NotFound.

    0 keeps for ever, None as the settings have it.
    """
    tenant = _get(session, tenant_id)
    tenant.keep_jobs_days, tenant.keep_events_days, tenant.keep_files_days = jobs, events, files


def _get(session: Session, tenant_id: str) -> Tenant:
    tenant = session.get(Tenant, tenant_id)
    if tenant is None:
        raise NotFound(f"No tenant {tenant_id}.", param="tenant")
    return tenant
