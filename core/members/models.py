"""Users, memberships, invitations, sessions, and tries to sign in."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import CheckConstraint, ForeignKey, ForeignKeyConstraint, Index, UniqueConstraint
from sqlalchemy.orm import Mapped, mapped_column, relationship, synonym

from core.db.base import Base, CreatedAt, Name

_ROLES = "role IN ('owner', 'admin', 'member', 'viewer')"


class User(Base):
    """A person. He belongs to tenants by memberships, and is forgotten with the last of them."""

    __tablename__ = "users"
    __table_args__ = (CheckConstraint("email = lower(email)", name="email"),)

    id: Mapped[Name] = mapped_column(primary_key=True)
    email: Mapped[Name] = mapped_column(unique=True)
    name: Mapped[str]
    password_hash: Mapped[str] = mapped_column(deferred=True)  # the API's role may not read it
    created_at: Mapped[CreatedAt]


class Membership(Base):
    """A user's part in a tenant."""

    __tablename__ = "memberships"
    __table_args__ = (
        CheckConstraint(_ROLES, name="role"),
        Index("ix_memberships_page", "tenant_id", "created_at", "user_id"),
    )

    tenant_id: Mapped[Name] = mapped_column(ForeignKey("tenants.id"), primary_key=True)
    user_id: Mapped[Name] = mapped_column(ForeignKey("users.id"), primary_key=True, index=True)
    role: Mapped[str]  # a Role
    created_at: Mapped[CreatedAt]

    id: Mapped[str] = synonym("user_id")  # within its tenant
    user: Mapped[User] = relationship(lazy="joined", innerjoin=True)


class Invitation(Base):
    """A place in a tenant for whoever has the token."""

    __tablename__ = "invitations"
    __table_args__ = (
        UniqueConstraint("tenant_id", "email"),
        CheckConstraint(_ROLES, name="role"),
        Index("ix_invitations_page", "tenant_id", "created_at", "id"),
        Index("ix_invitations_expires", "expires_at"),
    )

    id: Mapped[Name] = mapped_column(primary_key=True)
    tenant_id: Mapped[Name] = mapped_column(ForeignKey("tenants.id"))
    email: Mapped[Name]
    role: Mapped[str]  # a Role
    token_sha256: Mapped[str] = mapped_column(unique=True)
    created_at: Mapped[CreatedAt]
    expires_at: Mapped[datetime]


class UserSession(Base):
    """A user who has signed in to a tenant; it ends with his membership."""

    __tablename__ = "user_sessions"
    __table_args__ = (
        ForeignKeyConstraint(
            ["tenant_id", "user_id"], ["memberships.tenant_id", "memberships.user_id"], ondelete="CASCADE"
        ),
        Index("ix_user_sessions_member", "tenant_id", "user_id"),
        Index("ix_user_sessions_expires", "expires_at"),
    )

    id: Mapped[Name] = mapped_column(primary_key=True)
    tenant_id: Mapped[Name]
    user_id: Mapped[Name]
    token_sha256: Mapped[str] = mapped_column(unique=True)
    created_at: Mapped[CreatedAt]
    expires_at: Mapped[datetime]


class SignInTries(Base):
    """How often somebody tried to sign in with an address, whether or not there is such an account."""

    __tablename__ = "sign_in_tries"
    __table_args__ = (Index("ix_sign_in_tries_since", "since"),)

    email_sha256: Mapped[Name] = mapped_column(primary_key=True)
    tries: Mapped[int]
    since: Mapped[datetime]
