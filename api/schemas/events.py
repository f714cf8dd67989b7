"""Events on the wire: the same body in the list, on the stream and in webhooks."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field

from api.schemas.common import Resource, Time
from core.jobs import models
from core.webhooks.envelope import event_body


class Event(Resource):
    """Something that happened to a job, once."""

    id: str = Field(description="The same on every telling: what was seen before can be told by it.")
    object: Literal["event"] = "event"
    type: str = Field(examples=["generation.succeeded"])
    timestamp: Time
    created_at: int = Field(description="The same time in Unix seconds.")
    sequence: int = Field(description="Counts the events of one job from 1.")
    data: dict[str, Any] = Field(description="The job as it then was: its id, kind, state, progress, result, error.")

    @classmethod
    def of(cls, event: models.Event) -> Event:
        """The event as it is shown."""
        return cls.model_validate(event_body(event))
