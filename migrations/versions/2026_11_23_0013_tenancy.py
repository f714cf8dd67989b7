"""Keys that expire, rotate and say when they were last used; users, their memberships, invitations and sessions;
grants of concepts.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0013"
down_revision = "0012"
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

# A try is counted before the password is looked at, so that parallel tries are bounded too. Whether there is such an
# account makes no difference to whoever tries.
BEGIN_SIGN_IN = """
CREATE FUNCTION begin_sign_in(wanted_email text, most bigint, within interval)
RETURNS TABLE (allowed boolean, user_id text, password_hash text)
LANGUAGE sql VOLATILE SECURITY DEFINER SET search_path = public, pg_temp AS $$
    WITH counted AS (
        INSERT INTO sign_in_tries AS t (email_sha256, tries, since)
        VALUES (encode(sha256(convert_to(wanted_email, 'UTF8')), 'hex'), 1, lockstep_now())
        ON CONFLICT (email_sha256) DO UPDATE SET
            tries = CASE WHEN t.since < lockstep_now() - within THEN 1 ELSE t.tries + 1 END,
            since = CASE WHEN t.since < lockstep_now() - within THEN lockstep_now() ELSE t.since END
        RETURNING t.tries)
    SELECT c.tries <= most, u.id, u.password_hash FROM counted c LEFT JOIN users u ON u.email = wanted_email
$$
"""

# Whoever knows the password may see where he belongs, and the tries before are forgotten.
MEMBERSHIPS_OF = """
CREATE FUNCTION memberships_of(wanted_user text) RETURNS TABLE (tenant_id text, tenant_name text)
LANGUAGE sql VOLATILE SECURITY DEFINER SET search_path = public, pg_temp AS $$
    WITH forgotten AS (
        DELETE FROM sign_in_tries WHERE email_sha256 IN (
            SELECT encode(sha256(convert_to(u.email, 'UTF8')), 'hex') FROM users u WHERE u.id = wanted_user))
    SELECT m.tenant_id, t.name FROM memberships m JOIN tenants t ON t.id = m.tenant_id
    WHERE m.user_id = wanted_user ORDER BY m.created_at, m.tenant_id
$$
"""

# For a member of the transaction's tenant who gave his old password: the tries are forgotten, his other sessions end.
CHANGE_USER = """
CREATE FUNCTION change_password(for_user text, new_hash text, kept_sha256 text) RETURNS void
LANGUAGE sql VOLATILE SECURITY DEFINER SET search_path = public, pg_temp AS $$
    WITH changed AS (
        UPDATE users u SET password_hash = new_hash FROM memberships m
        WHERE u.id = for_user AND m.user_id = u.id AND m.tenant_id = app_tenant() RETURNING u.id, u.email),
    ended AS (DELETE FROM user_sessions s USING changed c WHERE s.user_id = c.id AND s.token_sha256 <> kept_sha256)
    DELETE FROM sign_in_tries t USING changed c
    WHERE t.email_sha256 = encode(sha256(convert_to(c.email, 'UTF8')), 'hex')
$$
"""

RESOLVE_SESSION = """
CREATE FUNCTION resolve_session(wanted_sha256 text)
RETURNS TABLE (tenant_id text, user_id text, role text, is_operator boolean)
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = public, pg_temp AS $$
    SELECT s.tenant_id, s.user_id, m.role, t.is_operator FROM user_sessions s
    JOIN memberships m ON m.tenant_id = s.tenant_id AND m.user_id = s.user_id
    JOIN tenants t ON t.id = s.tenant_id
    WHERE s.token_sha256 = wanted_sha256 AND s.expires_at > lockstep_now()
$$
"""

RESOLVE_INVITATION = """
CREATE FUNCTION resolve_invitation(wanted_sha256 text) RETURNS TABLE (tenant_id text, email text)
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = public, pg_temp AS $$
    SELECT i.tenant_id, i.email FROM invitations i
    WHERE i.token_sha256 = wanted_sha256 AND i.expires_at > lockstep_now()
$$
"""

# Who is a user already keeps his name and password.
ACCEPT_INVITATION = """
CREATE FUNCTION accept_invitation(wanted_sha256 text, new_user text, new_name text, new_hash text)
RETURNS TABLE (user_id text, role text)
LANGUAGE sql VOLATILE SECURITY DEFINER SET search_path = public, pg_temp AS $$
    WITH taken AS (
        DELETE FROM invitations i WHERE i.token_sha256 = wanted_sha256 AND i.expires_at > lockstep_now()
        RETURNING i.tenant_id, i.email, i.role),
    known AS (
        INSERT INTO users AS u (id, email, name, password_hash) SELECT new_user, email, new_name, new_hash FROM taken
        ON CONFLICT (email) DO UPDATE SET email = u.email RETURNING u.id)
    INSERT INTO memberships AS m (tenant_id, user_id, role) SELECT t.tenant_id, k.id, t.role FROM taken t, known k
    ON CONFLICT ON CONSTRAINT pk_memberships DO UPDATE SET role = m.role RETURNING m.user_id, m.role
$$
"""

# Somebody who belongs nowhere any more is forgotten.
FORGET_USER = """
CREATE FUNCTION forget_user() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER SET search_path = public, pg_temp AS $$
BEGIN
    PERFORM 1 FROM users WHERE id = OLD.user_id FOR UPDATE;  -- nobody joins him to another tenant meanwhile
    DELETE FROM users WHERE id = OLD.user_id AND NOT EXISTS (SELECT 1 FROM memberships WHERE user_id = OLD.user_id);
    RETURN NULL;
END $$
"""

# What other tenants let this one draw with.
GRANTED_CONCEPTS = """
CREATE FUNCTION granted_concepts() RETURNS SETOF concepts
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = public, pg_temp AS $$
    SELECT c.* FROM concept_grants g JOIN concepts c ON c.tenant_id = g.tenant_id AND c.id = g.concept_id
    WHERE g.grantee_id = app_tenant() AND c.deleted_at IS NULL
$$
"""

GRANTED_VERSIONS = """
CREATE FUNCTION granted_versions() RETURNS SETOF concept_versions
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = public, pg_temp AS $$
    SELECT v.* FROM concept_grants g
    JOIN concepts c ON c.tenant_id = g.tenant_id AND c.id = g.concept_id AND c.deleted_at IS NULL
    JOIN concept_versions v ON v.tenant_id = c.tenant_id AND v.concept_id = c.id
    WHERE g.grantee_id = app_tenant()
$$
"""

# A revocation waits for those who are just accepting a job, then finds it; whoever comes later finds no grant.
USE_GRANTS = """
CREATE FUNCTION use_grants(for_job text, wanted text[]) RETURNS SETOF text
LANGUAGE sql VOLATILE SECURITY DEFINER SET search_path = public, pg_temp AS $$
    WITH held AS (
        SELECT g.concept_id FROM concept_grants g WHERE g.grantee_id = app_tenant() AND g.concept_id = ANY (wanted)
        ORDER BY g.concept_id FOR SHARE)
    INSERT INTO granted_uses (tenant_id, job_id, concept_id) SELECT app_tenant(), for_job, h.concept_id FROM held h
    RETURNING concept_id
$$
"""

FUNCTIONS = {
    "granted_concepts()": GRANTED_CONCEPTS,
    "granted_versions()": GRANTED_VERSIONS,
    "use_grants(text, text[])": USE_GRANTS,
    "begin_sign_in(text, bigint, interval)": BEGIN_SIGN_IN,
    "memberships_of(text)": MEMBERSHIPS_OF,
    "change_password(text, text, text)": CHANGE_USER,
    "resolve_session(text)": RESOLVE_SESSION,
    "resolve_invitation(text)": RESOLVE_INVITATION,
    "accept_invitation(text, text, text, text)": ACCEPT_INVITATION,
}
RIGHTS = {  # what the API may do with the tenant's rows; all else is done by the functions
    "memberships": "SELECT, UPDATE (role), DELETE",
    "invitations": "SELECT, INSERT, DELETE",
    "user_sessions": "SELECT, INSERT, DELETE",
    "concept_grants": "SELECT, INSERT, DELETE",
    "granted_uses": "SELECT",
}
ROLES = "role IN ('owner', 'admin', 'member', 'viewer')"


def upgrade() -> None:
    op.execute("SET LOCAL lock_timeout = '5s'")
    _prepare_keys()
    _make_users()
    _make_memberships()
    _make_invitations()
    _make_sessions()
    _make_grants()
    for table, rights in RIGHTS.items():
        _guard(table)
        op.execute(
            f"CREATE POLICY api_own ON {table} TO lockstep_api "
            "USING (tenant_id = (SELECT app_tenant())) WITH CHECK (tenant_id = (SELECT app_tenant()))"
        )
        op.execute(f"GRANT {rights} ON {table} TO lockstep_api")
    for signature, function in FUNCTIONS.items():
        _define(signature, function)


def _make_users() -> None:
    op.create_table(
        "users",
        sa.Column("id", sa.Text(collation="C"), nullable=False),
        sa.Column("email", sa.Text(collation="C"), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("password_hash", sa.Text(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("lockstep_now()"), nullable=False),
        sa.CheckConstraint("email = lower(email)", name=op.f("ck_users_email")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_users")),
        sa.UniqueConstraint("email", name=op.f("uq_users_email")),
    )
    op.create_table(
        "sign_in_tries",
        sa.Column("email_sha256", sa.Text(collation="C"), nullable=False),
        sa.Column("tries", sa.BigInteger(), nullable=False),
        sa.Column("since", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("email_sha256", name=op.f("pk_sign_in_tries")),
    )
    op.create_index("ix_sign_in_tries_since", "sign_in_tries", ["since"])
    op.execute("GRANT SELECT, UPDATE, DELETE ON sign_in_tries TO lockstep_worker")


def _make_memberships() -> None:
    op.create_table(
        "memberships",
        sa.Column("tenant_id", sa.Text(collation="C"), nullable=False),
        sa.Column("user_id", sa.Text(collation="C"), nullable=False),
        sa.Column("role", sa.Text(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("lockstep_now()"), nullable=False),
        sa.CheckConstraint(ROLES, name=op.f("ck_memberships_role")),
        sa.ForeignKeyConstraint(["tenant_id"], ["tenants.id"], name=op.f("fk_memberships_tenant_id")),
        sa.ForeignKeyConstraint(["user_id"], ["users.id"], name=op.f("fk_memberships_user_id")),
        sa.PrimaryKeyConstraint("tenant_id", "user_id", name=op.f("pk_memberships")),
    )
    op.create_index("ix_memberships_page", "memberships", ["tenant_id", "created_at", "user_id"])
    op.create_index("ix_memberships_user_id", "memberships", ["user_id"])
    op.execute(FORGET_USER)
    op.execute("REVOKE ALL ON FUNCTION forget_user() FROM PUBLIC")
    op.execute("CREATE TRIGGER forget AFTER DELETE ON memberships FOR EACH ROW EXECUTE FUNCTION forget_user()")
    _guard("users", operators="id, email, name, created_at")
    op.execute(
        "CREATE POLICY api_members ON users FOR SELECT TO lockstep_api USING (EXISTS ("
        "SELECT 1 FROM memberships m WHERE m.user_id = users.id AND m.tenant_id = (SELECT app_tenant())))"
    )
    op.execute("GRANT SELECT (id, email, name, created_at) ON users TO lockstep_api")


def _make_invitations() -> None:
    op.create_table(
        "invitations",
        sa.Column("id", sa.Text(collation="C"), nullable=False),
        sa.Column("tenant_id", sa.Text(collation="C"), nullable=False),
        sa.Column("email", sa.Text(collation="C"), nullable=False),
        sa.Column("role", sa.Text(), nullable=False),
        sa.Column("token_sha256", sa.Text(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("lockstep_now()"), nullable=False),
        sa.Column("expires_at", sa.DateTime(timezone=True), nullable=False),
        sa.CheckConstraint(ROLES, name=op.f("ck_invitations_role")),
        sa.ForeignKeyConstraint(["tenant_id"], ["tenants.id"], name=op.f("fk_invitations_tenant_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_invitations")),
        sa.UniqueConstraint("tenant_id", "email", name=op.f("uq_invitations_tenant_id_email")),
        sa.UniqueConstraint("token_sha256", name=op.f("uq_invitations_token_sha256")),
    )
    op.create_index("ix_invitations_page", "invitations", ["tenant_id", "created_at", "id"])
    op.create_index("ix_invitations_expires", "invitations", ["expires_at"])


def _make_sessions() -> None:
    op.create_table(
        "user_sessions",
        sa.Column("id", sa.Text(collation="C"), nullable=False),
        sa.Column("tenant_id", sa.Text(collation="C"), nullable=False),
        sa.Column("user_id", sa.Text(collation="C"), nullable=False),
        sa.Column("token_sha256", sa.Text(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("lockstep_now()"), nullable=False),
        sa.Column("expires_at", sa.DateTime(timezone=True), nullable=False),
        sa.ForeignKeyConstraint(
            ["tenant_id", "user_id"],
            ["memberships.tenant_id", "memberships.user_id"],
            name=op.f("fk_user_sessions_tenant_id_user_id"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_user_sessions")),
        sa.UniqueConstraint("token_sha256", name=op.f("uq_user_sessions_token_sha256")),
    )
    op.create_index("ix_user_sessions_member", "user_sessions", ["tenant_id", "user_id"])
    op.create_index("ix_user_sessions_expires", "user_sessions", ["expires_at"])


def _make_grants() -> None:
    op.create_table(
        "concept_grants",
        sa.Column("tenant_id", sa.Text(collation="C"), nullable=False),
        sa.Column("concept_id", sa.Text(collation="C"), nullable=False),
        sa.Column("grantee_id", sa.Text(collation="C"), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("lockstep_now()"), nullable=False),
        sa.CheckConstraint("grantee_id <> tenant_id", name=op.f("ck_concept_grants_grantee")),
        sa.ForeignKeyConstraint(
            ["tenant_id", "concept_id"],
            ["concepts.tenant_id", "concepts.id"],
            name=op.f("fk_concept_grants_tenant_id_concept_id"),
        ),
        sa.ForeignKeyConstraint(["grantee_id"], ["tenants.id"], name=op.f("fk_concept_grants_grantee_id")),
        sa.PrimaryKeyConstraint("tenant_id", "concept_id", "grantee_id", name=op.f("pk_concept_grants")),
    )
    op.create_index("ix_concept_grants_page", "concept_grants", ["tenant_id", "concept_id", "created_at", "grantee_id"])
    op.create_index("ix_concept_grants_grantee", "concept_grants", ["grantee_id", "concept_id"])
    op.create_table(
        "granted_uses",
        sa.Column("tenant_id", sa.Text(collation="C"), nullable=False),
        sa.Column("job_id", sa.Text(collation="C"), nullable=False),
        sa.Column("concept_id", sa.Text(collation="C"), nullable=False),
        sa.ForeignKeyConstraint(
            ["tenant_id", "job_id"],
            ["jobs.tenant_id", "jobs.id"],
            name=op.f("fk_granted_uses_tenant_id_job_id"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("tenant_id", "job_id", "concept_id", name=op.f("pk_granted_uses")),
    )
    op.create_index("ix_granted_uses_concept", "granted_uses", ["tenant_id", "concept_id"])


def _guard(table: str, *, operators: str | None = None) -> None:
    """Force row-level security; the owner, the workers and the operators see every row by policies of their own."""
    op.execute(f"ALTER TABLE {table} ENABLE ROW LEVEL SECURITY")
    op.execute(f"ALTER TABLE {table} FORCE ROW LEVEL SECURITY")
    op.execute(f"CREATE POLICY owner_all ON {table} TO CURRENT_USER USING (true) WITH CHECK (true)")
    for role in ("worker", "operator"):
        op.execute(f"CREATE POLICY {role}_all ON {table} TO lockstep_{role} USING (true) WITH CHECK (true)")
    op.execute(f"GRANT SELECT, INSERT, UPDATE, DELETE ON {table} TO lockstep_worker")
    op.execute(f"GRANT SELECT {'' if operators is None else f'({operators})'} ON {table} TO lockstep_operator")


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
    for signature in FUNCTIONS:
        op.execute(f"DROP FUNCTION {signature}")
    op.execute("DROP POLICY api_members ON users")
    for table in (
        "granted_uses",
        "concept_grants",
        "user_sessions",
        "invitations",
        "memberships",
        "sign_in_tries",
        "users",
    ):
        op.drop_table(table)
    op.execute("DROP FUNCTION forget_user()")
    _define("resolve_api_key(text)", RESOLVE_KEY_BEFORE)
    op.execute(
        "REVOKE INSERT, UPDATE (hint, key_sha256, previous_sha256, previous_until, revoked_at) ON api_keys FROM lockstep_api"
    )
    op.create_index("ix_api_keys_tenant_id", "api_keys", ["tenant_id"])
    op.drop_index("ix_api_keys_page", "api_keys")
    op.drop_constraint(op.f("uq_api_keys_previous_sha256"), "api_keys")
    for column in (*KEY_COLUMNS, "previous_sha256"):
        op.drop_column("api_keys", column)
