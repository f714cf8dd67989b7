"""What a member of a tenant may do: the same scopes that API keys have."""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from typing import Final


class Role(StrEnum):
    """A member's part in a tenant."""

    OWNER = "owner"  # an administrator who also makes and removes owners
    ADMIN = "admin"  # keys, members, webhooks, the audit log
    MEMBER = "member"  # works with everything
    VIEWER = "viewer"  # looks


SCOPES: Final[Mapping[Role, frozenset[str]]] = {
    Role.OWNER: frozenset({"admin"}),
    Role.ADMIN: frozenset({"admin"}),
    Role.MEMBER: frozenset({"generate", "train", "distill", "read"}),
    Role.VIEWER: frozenset({"read"}),
}
