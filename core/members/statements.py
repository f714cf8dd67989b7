"""SQL of users and how they come in. Functions of the owner look across tenants where none is known yet."""

from __future__ import annotations

from sqlalchemy import BigInteger, Interval, Select, Text, bindparam, select, text

from core.db.paging import Place, nearest_first
from core.members.models import Invitation, Membership

BEGIN_SIGN_IN = text("SELECT allowed, user_id, password_hash FROM begin_sign_in(:email, :most, :within)").bindparams(
    bindparam("most", type_=BigInteger()), bindparam("within", type_=Interval())
)

MEMBERSHIPS_OF = text("SELECT tenant_id, tenant_name FROM memberships_of(:user_id)")

START_SESSION = text("""
    INSERT INTO user_sessions (id, tenant_id, user_id, token_sha256, expires_at)
    VALUES (:id, :tenant_id, :user_id, :sha256, lockstep_now() + :lifetime)
    RETURNING expires_at
""").bindparams(bindparam("lifetime", type_=Interval()))

# With it a token is taken from one of the tenant's buckets, as with a key.
RESOLVE_SESSION = text("""
    SELECT s.tenant_id, s.user_id, s.role, s.is_operator, coalesce(t.taken, true) AS taken, t.full_in
    FROM resolve_session(:sha256) s
    LEFT JOIN LATERAL take_token(s.tenant_id, :policy, :quota, :period) t ON :quota > 0
""").bindparams(
    bindparam("policy", type_=Text()), bindparam("quota", type_=BigInteger()), bindparam("period", type_=Interval())
)

CHANGE_PASSWORD = text("SELECT change_password(:user_id, CAST(:hash AS text), :kept)")

END_SESSION = text("DELETE FROM user_sessions WHERE token_sha256 = :sha256 RETURNING id, tenant_id, user_id")

END_SESSIONS_OF = text("DELETE FROM user_sessions WHERE user_id = :user_id")

# In place of an earlier one to the same address.
INVITE = text("""
    INSERT INTO invitations (id, tenant_id, email, role, token_sha256, expires_at)
    VALUES (:id, :tenant_id, :email, :role, :sha256, lockstep_now() + :lifetime)
    ON CONFLICT (tenant_id, email) DO UPDATE SET id = excluded.id, role = excluded.role,
        token_sha256 = excluded.token_sha256, created_at = excluded.created_at, expires_at = excluded.expires_at
""").bindparams(bindparam("lifetime", type_=Interval()))

UNINVITE = text("DELETE FROM invitations WHERE id = :id RETURNING email, role, tenant_id")

RESOLVE_INVITATION = text("SELECT tenant_id, email FROM resolve_invitation(:sha256)")

ACCEPT_INVITATION = text("""
    SELECT user_id, role FROM accept_invitation(:sha256, :user_id, CAST(:name AS text), CAST(:hash AS text))
""").bindparams(bindparam("hash", type_=Text()))

# Owners are locked in one order, so that two who remove each other do not both find the other one left.
LOCK_OWNERS = text("SELECT user_id FROM memberships WHERE role = 'owner' ORDER BY user_id FOR UPDATE")

CHANGE_ROLE = text("UPDATE memberships SET role = :role WHERE user_id = :user_id")

REMOVE_MEMBER = text("DELETE FROM memberships WHERE user_id = :user_id")

PUT_USER = text("""
    INSERT INTO users AS u (id, email, name, password_hash) VALUES (:id, :email, :name, :hash)
    ON CONFLICT (email) DO UPDATE SET password_hash = excluded.password_hash RETURNING id
""")

PUT_MEMBERSHIP = text("""
    INSERT INTO memberships (tenant_id, user_id, role) VALUES (:tenant_id, :user_id, :role)
    ON CONFLICT (tenant_id, user_id) DO UPDATE SET role = excluded.role
""")


def members_page(*, after: Place | None, before: Place | None, limit: int) -> Select[Membership]:
    """Members, nearest to a place first."""
    query = select(Membership)
    return nearest_first(query, Membership.created_at, Membership.user_id, after=after, before=before, limit=limit)


def member_by_id(user_id: str) -> Select[Membership]:
    """One member."""
    return select(Membership).where(Membership.user_id == user_id)


def member_by_email(email: str) -> Select[Membership]:
    """One member, by address."""
    return select(Membership).where(Membership.user.has(email=email))


def invitations_page(*, after: Place | None, before: Place | None, limit: int) -> Select[Invitation]:
    """Invitations, nearest to a place first."""
    query = select(Invitation)
    return nearest_first(query, Invitation.created_at, Invitation.id, after=after, before=before, limit=limit)


def invitation_by_id(invitation_id: str) -> Select[Invitation]:
    """One invitation."""
    return select(Invitation).where(Invitation.id == invitation_id)
