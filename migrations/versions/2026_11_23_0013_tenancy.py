"""Keys that expire, rotate and say when they were last used."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0013"
down_revision = "0011"
branch_labels = None
depends_on = None

KEY_COLUMNS = ("expires_at", "last_used_at", "previous_until")

# One statement finds the key and, at most once a minute, writes down that it was used; nobody waits to write that.
RESOLVE_KEY = """
CREATE FUNCTION resolve_api_key(wanted_sha256 text)
RETURNS TABLE (key_id text, tenant_id text, scopes text[], is_operator boolean)
LANGUAGE sql VOLATILE SECURITY DEFINER SET search_path = public, pg_temp AS $$
    WITH found AS (
        SELECT k.id, k.tenant_id, k.scopes FROM api_keys k
        WHERE (k.key_sha256 = wanted_sha256
            OR (k.previous_sha256 = wanted_sha256 AND k.previous_until > lockstep_now()))
          AND k.revoked_at IS NULL AND (k.expires_at IS NULL OR k.expires_at > lockstep_now())),
    used AS (
        UPDATE api_keys SET last_used_at = lockstep_now() WHERE id IN (
            SELECT k.id FROM api_keys k JOIN found ON found.id = k.id
            WHERE k.last_used_at IS NULL OR k.last_used_at < lockstep_now() - interval '1 minute'
            FOR NO KEY UPDATE OF k SKIP LOCKED))
    SELECT f.id, f.tenant_id, f.scopes, t.is_operator FROM found f JOIN tenants t ON t.id = f.tenant_id
$$
"""
RESOLVE_KEY_BEFORE = """
CREATE FUNCTION resolve_api_key(wanted_sha256 text)
RETURNS TABLE (key_id text, tenant_id text, scopes text[], is_operator boolean)
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = public, pg_temp AS $$
    SELECT k.id, k.tenant_id, k.scopes, t.is_operator FROM api_keys k JOIN tenants t ON t.id = k.tenant_id
    WHERE k.key_sha256 = wanted_sha256 AND k.revoked_at IS NULL
$$
"""


def upgrade() -> None:
    op.execute("SET LOCAL lock_timeout = '5s'")
    _prepare_keys()


def _prepare_keys() -> None:
    for column in KEY_COLUMNS:
        op.add_column("api_keys", sa.Column(column, sa.DateTime(timezone=True), nullable=True))
    op.add_column("api_keys", sa.Column("previous_sha256", sa.Text(), nullable=True))
    op.create_unique_constraint(op.f("uq_api_keys_previous_sha256"), "api_keys", ["previous_sha256"])
    op.create_index("ix_api_keys_page", "api_keys", ["tenant_id", "created_at", "id"])
    op.drop_index("ix_api_keys_tenant_id", "api_keys")
    op.execute(
        "GRANT INSERT, UPDATE (hint, key_sha256, previous_sha256, previous_until, revoked_at) ON api_keys TO lockstep_api"
    )
    _define("resolve_api_key(text)", RESOLVE_KEY)


def _define(signature: str, function: str) -> None:
    """Make a function anew that looks across tenants, for the API alone."""
    op.execute(f"DROP FUNCTION IF EXISTS {signature}")
    op.execute(function)
    op.execute(f"REVOKE ALL ON FUNCTION {signature} FROM PUBLIC")
    op.execute(f"GRANT EXECUTE ON FUNCTION {signature} TO lockstep_api")


def downgrade() -> None:
    op.execute("SET LOCAL lock_timeout = '5s'")
    _define("resolve_api_key(text)", RESOLVE_KEY_BEFORE)
    op.execute(
        "REVOKE INSERT, UPDATE (hint, key_sha256, previous_sha256, previous_until, revoked_at) ON api_keys FROM lockstep_api"
    )
    op.create_index("ix_api_keys_tenant_id", "api_keys", ["tenant_id"])
    op.drop_index("ix_api_keys_page", "api_keys")
    op.drop_constraint(op.f("uq_api_keys_previous_sha256"), "api_keys")
    for column in (*KEY_COLUMNS, "previous_sha256"):
        op.drop_column("api_keys", column)
