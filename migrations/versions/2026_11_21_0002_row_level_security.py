"""Roles, row-level security and the one function that looks across tenants.

``lockstep_owner`` (or whoever migrates) owns the tables; ``lockstep_api`` sees one tenant's rows, that of
``app.tenant_id``; ``lockstep_worker`` sees all. None of them bypasses row-level security, which is forced.
"""

from __future__ import annotations

from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

# A server that was not made by us may lack the roles; then the migrating login may act as them by SET ROLE.
ROLES = """
DO $$ DECLARE wanted text; BEGIN
    FOREACH wanted IN ARRAY ARRAY['lockstep_api', 'lockstep_worker'] LOOP
        IF NOT EXISTS (SELECT 1 FROM pg_roles WHERE rolname = wanted) THEN
            EXECUTE format('CREATE ROLE %I NOLOGIN', wanted);
            EXECUTE format('GRANT %I TO CURRENT_USER', wanted);
        END IF;
    END LOOP;
END $$
"""

# After SET LOCAL has ended the setting is empty, not null.
TENANT = """
CREATE FUNCTION app_tenant() RETURNS text LANGUAGE sql STABLE PARALLEL SAFE AS $$
    SELECT nullif(current_setting('app.tenant_id', true), '')
$$
"""

RESOLVE_KEY = """
CREATE FUNCTION resolve_api_key(wanted_sha256 text) RETURNS TABLE (key_id text, tenant_id text, scopes text[])
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = public, pg_temp AS $$
    SELECT id, tenant_id, scopes FROM api_keys WHERE key_sha256 = wanted_sha256 AND revoked_at IS NULL
$$
"""

# What the API may do with each table that belongs to tenants; the expression names the row's tenant.
API_RIGHTS = {
    "api_keys": ("SELECT", "tenant_id"),
    "concept_versions": ("SELECT", "tenant_id"),
    "concepts": ("SELECT, INSERT, UPDATE", "tenant_id"),
    "events": ("SELECT, INSERT", "tenant_id"),
    "files": ("SELECT, INSERT, DELETE", "tenant_id"),
    "idempotency_keys": ("SELECT, INSERT, UPDATE, DELETE", "tenant_id"),
    "job_attempts": ("SELECT", "tenant_id"),
    "jobs": ("SELECT, INSERT, UPDATE", "tenant_id"),
    "ready": ("SELECT, INSERT, DELETE", "tenant_id"),
    "sched_notes": ("SELECT, INSERT", "tenant_id"),
    "tenant_pools": ("SELECT, INSERT", "tenant_id"),
    "tenant_sched": ("SELECT, INSERT", "tenant_id"),
    "tenants": ("SELECT", "id"),
    "webhook_attempts": ("SELECT", "tenant_id"),
    "webhook_deliveries": ("SELECT, INSERT", "tenant_id"),
    "webhook_endpoints": ("SELECT, INSERT, UPDATE", "tenant_id"),
}
SHARED_TABLES = ("pools", "workers")  # no tenant's


def upgrade() -> None:
    op.execute("SET LOCAL lock_timeout = '5s'")
    op.execute(ROLES)
    op.execute(TENANT)
    for table, (rights, tenant) in API_RIGHTS.items():
        _guard(table)
        op.execute(
            f"CREATE POLICY api_own ON {table} TO lockstep_api "
            f"USING ({tenant} = (SELECT app_tenant())) WITH CHECK ({tenant} = (SELECT app_tenant()))"
        )
        op.execute(f"GRANT {rights} ON {table} TO lockstep_api")
    _guard("models")
    op.execute(
        "CREATE POLICY api_visible ON models FOR SELECT TO lockstep_api "
        "USING (tenant_id IS NULL OR tenant_id = (SELECT app_tenant()))"
    )
    op.execute("GRANT SELECT ON models TO lockstep_api")
    op.execute("GRANT SELECT ON pools TO lockstep_api")
    op.execute("GRANT SELECT ON alembic_version TO lockstep_api")  # whether the database fits the code
    for table in (*API_RIGHTS, "models", *SHARED_TABLES):
        op.execute(f"GRANT SELECT, INSERT, UPDATE, DELETE ON {table} TO lockstep_worker")
    op.execute("GRANT USAGE ON SEQUENCE fence TO lockstep_worker")
    op.execute(RESOLVE_KEY)
    op.execute("REVOKE ALL ON FUNCTION resolve_api_key(text) FROM PUBLIC")
    op.execute("GRANT EXECUTE ON FUNCTION resolve_api_key(text) TO lockstep_api")


def _guard(table: str) -> None:
    """Force row-level security; the owner and the workers see every row by a policy of their own."""
    op.execute(f"ALTER TABLE {table} ENABLE ROW LEVEL SECURITY")
    op.execute(f"ALTER TABLE {table} FORCE ROW LEVEL SECURITY")
    op.execute(f"CREATE POLICY owner_all ON {table} TO CURRENT_USER USING (true) WITH CHECK (true)")
    op.execute(f"CREATE POLICY worker_all ON {table} TO lockstep_worker USING (true) WITH CHECK (true)")


def downgrade() -> None:
    op.execute("SET LOCAL lock_timeout = '5s'")
    op.execute("DROP FUNCTION resolve_api_key(text)")
    op.execute("REVOKE ALL ON SEQUENCE fence FROM lockstep_worker")
    for table in (*API_RIGHTS, "models"):
        for policy in ("owner_all", "worker_all", "api_own", "api_visible"):
            op.execute(f"DROP POLICY IF EXISTS {policy} ON {table}")
        op.execute(f"ALTER TABLE {table} NO FORCE ROW LEVEL SECURITY")
        op.execute(f"ALTER TABLE {table} DISABLE ROW LEVEL SECURITY")
    for table in (*API_RIGHTS, "models", *SHARED_TABLES):
        op.execute(f"REVOKE ALL ON {table} FROM lockstep_api, lockstep_worker")
    op.execute("REVOKE ALL ON alembic_version FROM lockstep_api")
    op.execute("DROP FUNCTION app_tenant()")
