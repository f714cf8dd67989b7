"""Webhook endpoints and their deliveries on the wire."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import ConfigDict, Field

from api.schemas.common import RequestBody, Resource, Text, Time
from core.webhooks import models
from core.webhooks.models import WebhookDelivery

Name = Annotated[Text, Field(max_length=200)]
Url = Annotated[Text, Field(min_length=1, max_length=2048)]


class CreateWebhookEndpoint(RequestBody):
    """An address that events are to be sent to."""

    model_config = ConfigDict(
        json_schema_extra={"examples": [{"url": "https://example.com/hooks", "event_types": ["generation.succeeded"]}]}
    )

    url: Url
    name: Name = Field(default="", description="For people.")
    event_types: list[Text] = Field(default=[], description="Only these types; none: all of them.")


class UpdateWebhookEndpoint(RequestBody):
    """What is to change; what is left out stays."""

    url: Url | None = None
    name: Name | None = None
    event_types: list[Text] | None = Field(default=None, description="An empty list: all types.")


class WebhookEndpoint(Resource):
    """An address that events are sent to."""

    id: str = Field(examples=["we_01kaj0c5pmq2v8y4dn6rx3zwte"])
    object: Literal["webhook_endpoint"] = "webhook_endpoint"
    name: str
    url: str
    event_types: list[str] = Field(description="Empty: all types.")
    created_at: Time

    @classmethod
    def of(cls, endpoint: models.WebhookEndpoint) -> WebhookEndpoint:
        """The endpoint as it is shown."""
        return cls(
            id=endpoint.id,
            name=endpoint.name,
            url=endpoint.url,
            event_types=endpoint.event_types,
            created_at=endpoint.created_at,
        )


class NewWebhookEndpoint(WebhookEndpoint):
    """An endpoint that was just created, with its secret."""

    signing_secret: str = Field(description="Verifies signatures (Standard Webhooks). Shown this once.")


class Delivery(Resource):
    """One event owed to one endpoint."""

    id: str = Field(examples=["dlv_0cc175b9c0f1b6a831c399e269772661"])
    object: Literal["webhook_delivery"] = "webhook_delivery"
    event_id: str
    state: Literal["pending", "delivered", "failed"]
    attempt: int = Field(description="Requests made so far.")
    next_attempt_at: Time | None = Field(description="Null once it was delivered or given up.")
    created_at: Time
    delivered_at: Time | None

    @classmethod
    def of(cls, delivery: WebhookDelivery) -> Delivery:
        """The delivery as it is shown."""
        return cls.model_validate(
            {
                "id": delivery.id,
                "event_id": delivery.event_id,
                "state": delivery.state,
                "attempt": delivery.attempt,
                "next_attempt_at": delivery.next_attempt_at,
                "created_at": delivery.created_at,
                "delivered_at": delivery.delivered_at,
            }
        )
