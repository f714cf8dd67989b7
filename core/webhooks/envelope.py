"""The one shape in which an event is told: by webhook, by ``/v1/events`` and on the stream."""

from __future__ import annotations

from datetime import UTC
from typing import Any

from core.jobs.models import Event


def event_body(event: Event) -> dict[str, Any]:
    """The event as the world sees it, the same on every telling. Both times are when it happened."""
    happened_at = event.created_at.astimezone(UTC)
    return {
        "id": event.id,
        "object": "event",
        "type": event.type,
        "timestamp": happened_at.isoformat().replace("+00:00", "Z"),
        "created_at": int(happened_at.timestamp()),
        "sequence": event.sequence,
        "data": event.data,
    }
