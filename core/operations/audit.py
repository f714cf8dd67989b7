"""Writing down privileged acts, in the transaction that does them: an act that is undone was never done."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from sqlalchemy.orm import Session

from core.ids import new_id
from core.operations.models import AuditEntry


@dataclass(frozen=True)
class Actor:
    """Who acts, and in which request."""

    id: str
    request_id: str | None = None


def note(
    session: Session,
    actor: Actor,
    action: str,
    object_id: str,
    *,
    tenant_id: str | None = None,
    before: Mapping[str, Any] | None = None,
    after: Mapping[str, Any] | None = None,
) -> None:
    """Write an act down; ``action`` is like ``tenant.paused``, ``tenant_id`` whom it concerns."""
    session.add(
        AuditEntry(
            id=new_id("aud"),
            tenant_id=tenant_id,
            actor=actor.id,
            action=action,
            object_id=object_id,
            before=None if before is None else dict(before),
            after=None if after is None else dict(after),
            request_id=actor.request_id,
        )
    )
