"""SQL over every table that belongs to tenants: found in the models, so that no new one is forgotten."""

from __future__ import annotations

from typing import Any

from sqlalchemy import Delete, Select, Table, delete, select, text

from core.db.tables import METADATA
from core.files.models import File
from core.members.models import Membership, User
from core.operations.models import AuditEntry
from core.tenants.models import Tenant

# What lets somebody in, or proves who sent something, is nobody's to carry away.
_SECRET = ("secret", "password")
_KEPT = frozenset({AuditEntry.__tablename__})  # nobody removes what was written down


def owned_tables() -> list[Table]:
    """Every table with rows of tenants, those that others refer to first."""
    return [table for table in METADATA.sorted_tables if "tenant_id" in table.c]


def deletable_tables() -> list[Table]:
    """Those whose rows go with their tenant, in an order in which they can."""
    return [table for table in reversed(owned_tables()) if table.name not in _KEPT]


def rows_of(table: Table, tenant_id: str) -> Select[Any]:
    """A tenant's rows, without secrets and their hashes."""
    return select(*_public(table)).where(table.c.tenant_id == tenant_id)


def tenant_row(tenant_id: str) -> Select[Any]:
    """The tenant itself."""
    return select(*_public(METADATA.tables[Tenant.__tablename__])).where(Tenant.id == tenant_id)


def users_of(tenant_id: str) -> Select[Any]:
    """The tenant's members as users."""
    members = select(Membership.user_id).where(Membership.tenant_id == tenant_id)
    return select(*_public(METADATA.tables[User.__tablename__])).where(User.id.in_(members))


def files_of(tenant_id: str) -> Select[str, str, str, int]:
    """Where the tenant's files lie."""
    return select(File.id, File.name, File.key, File.size_bytes).where(File.tenant_id == tenant_id).order_by(File.id)


def delete_rows(table: Table, tenant_id: str) -> Delete:
    """Remove a tenant's rows."""
    return delete(table).where(table.c.tenant_id == tenant_id)


def _public(table: Table) -> list[Any]:
    return [
        column
        for column in table.c
        if not column.name.endswith("_sha256") and not any(word in column.name for word in _SECRET)
    ]


LOCK_TENANT = text("SELECT name FROM tenants WHERE id = :tenant_id FOR NO KEY UPDATE")

REVOKE_KEYS = text("""
    UPDATE api_keys SET revoked_at = lockstep_now() WHERE tenant_id = :tenant_id AND revoked_at IS NULL
""")

REMOVE_INVITATIONS = text("DELETE FROM invitations WHERE tenant_id = :tenant_id")

REMOVE_MEMBERS = text("DELETE FROM memberships WHERE tenant_id = :tenant_id")

# Parents first, then by id, as everybody locks several.
LOCK_LIVE = text("""
    SELECT id, state, pause_requested_at IS NOT NULL AS paused FROM jobs
    WHERE tenant_id = :tenant_id AND state IN ('queued', 'running')
    ORDER BY parent_id NULLS FIRST, id FOR UPDATE
""")

# Requests that had passed the door before it was shut have committed by then, and whoever comes later finds no tenant.
HOLD_TENANT = text("SELECT 1 FROM tenants WHERE id = :tenant_id FOR UPDATE")

COUNT_LIVE = text("SELECT count(*) FROM jobs WHERE tenant_id = :tenant_id AND state IN ('queued', 'running')")

# Those of other tenants that draw with what this one granted.
REVOKE_GRANTS = text("DELETE FROM concept_grants WHERE tenant_id = :tenant_id OR grantee_id = :tenant_id")

LOCK_GRANTED = text("""
    SELECT j.id, j.state, j.pause_requested_at IS NOT NULL AS paused FROM jobs j
    WHERE j.state IN ('queued', 'running') AND (j.tenant_id, j.id) IN (
        SELECT u.tenant_id, u.job_id FROM granted_uses u JOIN concepts c ON c.id = u.concept_id
        WHERE c.tenant_id = :tenant_id AND u.tenant_id <> c.tenant_id)
    ORDER BY j.parent_id NULLS FIRST, j.id FOR UPDATE
""")

FORGET_USES = text("""
    DELETE FROM granted_uses u USING concepts c WHERE c.id = u.concept_id AND c.tenant_id = :tenant_id
""")

COUNT_RUNNING = text("SELECT count(*) FROM jobs WHERE tenant_id = :tenant_id AND state = 'running'")

JOBS = text("SELECT id FROM jobs WHERE tenant_id = :tenant_id AND attempt > 0")

# The rows of years, in one transaction, may take longer than a request's statement.
TAKE_TIME = text("SET LOCAL statement_timeout = '1h'")

# Models, files and jobs refer to each other in a circle; here it is cut.
LOOSEN_FILES = text("UPDATE models SET file_id = NULL WHERE tenant_id = :tenant_id AND file_id IS NOT NULL")

DELETE_TENANT = text("DELETE FROM tenants WHERE id = :tenant_id")
