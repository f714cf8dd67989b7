"""A deleted concept is drawn with by nobody else; nobody joins by a password that was not checked; no limit is no error."""

from __future__ import annotations

from alembic import op

revision = "0018"
down_revision = "0017"
branch_labels = None
depends_on = None

USE_GRANTS = """
CREATE OR REPLACE FUNCTION use_grants(for_job text, wanted text[]) RETURNS SETOF text
LANGUAGE sql VOLATILE SECURITY DEFINER SET search_path = public, pg_temp AS $$
    WITH held AS (
        SELECT g.concept_id FROM concept_grants g {living}
        WHERE g.grantee_id = app_tenant() AND g.concept_id = ANY (wanted)
        ORDER BY g.concept_id FOR SHARE OF g)
    INSERT INTO granted_uses (tenant_id, job_id, concept_id) SELECT app_tenant(), for_job, h.concept_id FROM held h
    RETURNING concept_id
$$
"""
LIVING = "JOIN concepts c ON c.tenant_id = g.tenant_id AND c.id = g.concept_id AND c.deleted_at IS NULL"

# Who is a user already keeps his name and password. Whoever accepts has shown that he knows the one of this hash: if the
# account has another one by now, or has only come to be, nothing is accepted.
ACCEPT_INVITATION = """
CREATE OR REPLACE FUNCTION accept_invitation(wanted_sha256 text, new_user text, new_name text, new_hash text)
RETURNS TABLE (user_id text, role text)
LANGUAGE sql VOLATILE SECURITY DEFINER SET search_path = public, pg_temp AS $$
    WITH taken AS (
        DELETE FROM invitations i WHERE i.token_sha256 = wanted_sha256 AND i.expires_at > lockstep_now()
        RETURNING i.tenant_id, i.email, i.role),
    known AS (
        INSERT INTO users AS u (id, email, name, password_hash) SELECT new_user, email, new_name, new_hash FROM taken
        ON CONFLICT (email) DO UPDATE SET email = u.email {proven} RETURNING u.id)
    INSERT INTO memberships AS m (tenant_id, user_id, role) SELECT t.tenant_id, k.id, t.role FROM taken t, known k
    ON CONFLICT ON CONSTRAINT pk_memberships DO UPDATE SET role = m.role RETURNING m.user_id, m.role
$$
"""
PROVEN = "WHERE u.password_hash = excluded.password_hash"

# Nothing where there is no limit, whether or not the planner sees that before it calls this. A bucket that came to be
# after the statement began, and is empty, is not seen by it: then it is as empty as can be.
TAKE_FROM_BUCKET = """
CREATE OR REPLACE FUNCTION take_token(for_tenant text, of_policy text, quota bigint, period interval)
RETURNS TABLE (taken boolean, full_in interval)
LANGUAGE sql SECURITY DEFINER SET search_path = public, pg_temp AS $$
    WITH took AS (
        INSERT INTO rate_buckets AS b (tenant_id, policy, full_at)
        SELECT for_tenant, of_policy, lockstep_now() + period / quota WHERE quota > 0
        ON CONFLICT (tenant_id, policy) DO UPDATE
            SET full_at = greatest(b.full_at, lockstep_now()) + period / quota
            WHERE greatest(b.full_at, lockstep_now()) + period / quota <= lockstep_now() + period
        RETURNING full_at)
    SELECT true, full_at - lockstep_now() FROM took
    UNION ALL
    SELECT false, coalesce((
        SELECT full_at FROM rate_buckets WHERE tenant_id = for_tenant AND policy = of_policy) - lockstep_now(), period)
    WHERE quota > 0 AND NOT EXISTS (SELECT FROM took)
$$
"""
TAKE_FROM_BUCKET_BEFORE = """
CREATE OR REPLACE FUNCTION take_token(for_tenant text, of_policy text, quota bigint, period interval)
RETURNS TABLE (taken boolean, full_in interval)
LANGUAGE sql SECURITY DEFINER SET search_path = public, pg_temp AS $$
    WITH took AS (
        INSERT INTO rate_buckets AS b (tenant_id, policy, full_at)
        VALUES (for_tenant, of_policy, lockstep_now() + period / quota)
        ON CONFLICT (tenant_id, policy) DO UPDATE
            SET full_at = greatest(b.full_at, lockstep_now()) + period / quota
            WHERE greatest(b.full_at, lockstep_now()) + period / quota <= lockstep_now() + period
        RETURNING full_at)
    SELECT true, full_at - lockstep_now() FROM took
    UNION ALL
    SELECT false, full_at - lockstep_now() FROM rate_buckets
    WHERE tenant_id = for_tenant AND policy = of_policy AND NOT EXISTS (SELECT FROM took)
$$
"""

# What an invitation in place of an earlier one to the same address changes.
REPLACED = "id, role, token_sha256, created_at, expires_at"


def upgrade() -> None:
    op.execute("SET LOCAL lock_timeout = '5s'")
    op.execute(USE_GRANTS.format(living=LIVING))
    op.execute(ACCEPT_INVITATION.format(proven=PROVEN))
    op.execute(TAKE_FROM_BUCKET)
    op.execute(f"GRANT UPDATE ({REPLACED}) ON invitations TO lockstep_api")


def downgrade() -> None:
    op.execute("SET LOCAL lock_timeout = '5s'")
    op.execute(f"REVOKE UPDATE ({REPLACED}) ON invitations FROM lockstep_api")
    op.execute(TAKE_FROM_BUCKET_BEFORE)
    op.execute(ACCEPT_INVITATION.format(proven=""))
    op.execute(USE_GRANTS.format(living=""))
