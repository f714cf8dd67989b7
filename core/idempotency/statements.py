"""SQL of idempotency keys."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from sqlalchemy import Select, Text, bindparam, select, text
from sqlalchemy.dialects.postgresql import Insert, insert

from core.db.time import lockstep_now
from core.idempotency.models import IdempotencyKey

# Held until commit. Nobody waits: a request that meets its twin is told so.
TRY_LOCK = text("SELECT pg_try_advisory_xact_lock(hashtextextended(:name, 0))").bindparams(
    bindparam("name", type_=Text())
)
TRY_LOCK_SHARED = text("SELECT pg_try_advisory_xact_lock_shared(hashtextextended(:name, 0))").bindparams(
    bindparam("name", type_=Text())
)


def find_reply(*, tenant_id: str, route: str, key: str, younger_than: timedelta) -> Select[IdempotencyKey]:
    """The answer kept under a key, unless it is too old to count."""
    return select(IdempotencyKey).where(
        IdempotencyKey.tenant_id == tenant_id,
        IdempotencyKey.route == route,
        IdempotencyKey.key == key,
        IdempotencyKey.created_at > lockstep_now() - younger_than,
    )


def keep_reply(values: dict[str, Any]) -> Insert:
    """Keep an answer under a key, over one that is too old to count."""
    row = insert(IdempotencyKey).values(values)
    fresh = {name: row.excluded[name] for name in ("body_sha256", "status", "body", "location")}
    return row.on_conflict_do_update(
        index_elements=[IdempotencyKey.tenant_id, IdempotencyKey.route, IdempotencyKey.key],
        set_={**fresh, "created_at": lockstep_now()},
    )
