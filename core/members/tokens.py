"""Secrets that are told once: of sessions and of invitations. Only a hash is stored."""

from __future__ import annotations

import hashlib
import secrets
from typing import Literal


def new_token(kind: Literal["session", "invitation"]) -> str:
    """A fresh secret; how it begins tells what it is for."""
    return f"l{kind[0]}_{secrets.token_urlsafe(32)}"


def digest(token: str) -> str:
    """What is stored of it. A plain SHA-256 is enough: the token itself is random."""
    return hashlib.sha256(token.encode()).hexdigest()
