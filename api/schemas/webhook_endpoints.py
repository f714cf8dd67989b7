"""Webhook endpoints and their deliveries on the wire."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Literal

from pydantic import ConfigDict, Field

from api.schemas.common import GivenTime, RequestBody, Resource, Text, Time
from core.webhooks import models
from core.webhooks.models import WebhookAttempt, WebhookDelivery
from core.webhooks.notices import DisabledReason
from core.webhooks.redelivery import Recovery
from core.webhooks.requested import TenantSecret
from core.webhooks.schedule import DeliveryState
from core.webhooks.signing import hint

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
    in_order: bool = Field(default=False, description="Send a job's next event only when the one before has ended.")


class UpdateWebhookEndpoint(RequestBody):
    """What is to change; what is left out stays."""

    url: Url | None = None
    name: Name | None = None
    event_types: list[Text] | None = Field(default=None, description="An empty list: all types.")
    in_order: bool | None = None


class RotateSecret(RequestBody):
    """How the old secret goes."""

    keep_old_secret_active_for_24_hours: bool = Field(
        default=True, description="Sign with both for a day. Without it the old secret is void at once."
    )


class RecoverDeliveries(RequestBody):
    """Which events are to be sent again."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"since": "2026-11-21T09:30:00Z"}]})

    since: GivenTime = Field(description="Those that happened at this time or later.")
    until: GivenTime | None = Field(default=None, description="And before this one.")


class WebhookEndpoint(Resource):
    """An address that events are sent to."""

    id: str = Field(examples=["we_01kaj0c5pmq2v8y4dn6rx3zwte"])
    object: Literal["webhook_endpoint"] = "webhook_endpoint"
    name: str
    url: str
    event_types: list[str] = Field(description="Empty: all types.")
    in_order: bool = Field(description="Whether a job's events are sent one after the other.")
    created_at: Time
    on_request: bool = Field(
        description="Whether it stands for the webhooks of requests to a host: it hears only of jobs that name one."
    )
    signing_secret_hint: str | None = Field(
        examples=["whsec_...a2s="],
        description="Tells the secret from others; null where `/v1/webhook_secret` is the one.",
    )
    previous_secret_expires_at: Time | None = Field(description="Until then the secret before signs, too.")
    failing_since: Time | None = Field(description="The first failure after which nothing was accepted.")
    quiet_until: Time | None = Field(description="It asked, by `Retry-After`, to be left alone until then.")
    disabled_at: Time | None = Field(description="Since then nothing is sent there.")
    disabled_reason: DisabledReason | None = Field(
        description="`requested`; `gone`: it answered 410; `failing`: it accepted nothing for days."
    )

    @classmethod
    def of(cls, endpoint: models.WebhookEndpoint) -> WebhookEndpoint:
        """The endpoint as it is shown."""
        return cls(
            id=endpoint.id,
            name=endpoint.name,
            url=endpoint.url,
            event_types=endpoint.event_types,
            in_order=endpoint.in_order,
            created_at=endpoint.created_at,
            on_request=endpoint.on_request,
            signing_secret_hint=None if endpoint.secret is None else hint(endpoint.secret),
            previous_secret_expires_at=endpoint.previous_secret_expires_at,
            failing_since=endpoint.failing_since,
            quiet_until=endpoint.quiet_until,
            disabled_at=endpoint.disabled_at,
            disabled_reason=None if endpoint.disabled_reason is None else DisabledReason(endpoint.disabled_reason),
        )


class NewWebhookEndpoint(WebhookEndpoint):
    """An endpoint with a secret that was just made."""

    signing_secret: str = Field(description="Verifies signatures (Standard Webhooks). Shown this once.")


class WebhookSecret(Resource):
    """What signs the webhooks that requests name."""

    object: Literal["webhook_secret"] = "webhook_secret"
    signing_secret: str = Field(description="Verifies signatures (Standard Webhooks).")
    previous_secret_expires_at: Time | None = Field(description="Until then the secret before signs, too.")

    @classmethod
    def of(cls, found: TenantSecret) -> WebhookSecret:
        """The secret as it is shown."""
        return cls(signing_secret=found.secret, previous_secret_expires_at=found.previous_expires_at)


class Delivery(Resource):
    """One event owed to one endpoint."""

    id: str = Field(examples=["dlv_0cc175b9c0f1b6a831c399e269772661"])
    object: Literal["webhook_delivery"] = "webhook_delivery"
    event_id: str
    event_type: str = Field(examples=["generation.succeeded"])
    state: DeliveryState = Field(description="`held`: kept until the endpoint is enabled.")
    attempt: int = Field(description="Requests made so far.")
    next_attempt_at: Time | None = Field(description="Null unless it is pending.")
    created_at: Time
    delivered_at: Time | None

    @classmethod
    def of(cls, delivery: WebhookDelivery) -> Delivery:
        """The delivery as it is shown."""
        return cls(
            id=delivery.id,
            event_id=delivery.event_id,
            event_type=delivery.event.type,
            state=DeliveryState(delivery.state),
            attempt=delivery.attempt,
            next_attempt_at=delivery.next_attempt_at,
            created_at=delivery.created_at,
            delivered_at=delivery.delivered_at,
        )


class DeliveryAttempt(Resource):
    """One request of a delivery and how it ended."""

    attempt: int
    at: Time
    status: int | None = Field(description="Of the answer; null when none came.")
    error: str | None = Field(description="What was wrong; null when it was accepted.")
    duration_ms: int

    @classmethod
    def of(cls, attempt: WebhookAttempt) -> DeliveryAttempt:
        """The attempt as it is shown."""
        return cls(
            attempt=attempt.attempt,
            at=attempt.at,
            status=attempt.status,
            error=attempt.error,
            duration_ms=attempt.duration_ms,
        )


class DeliveryLog(Delivery):
    """A delivery and every request that was made for it."""

    attempts: list[DeliveryAttempt]

    @classmethod
    def with_attempts(cls, delivery: WebhookDelivery, attempts: Sequence[WebhookAttempt]) -> DeliveryLog:
        """The delivery and its attempts as they are shown."""
        shown = [DeliveryAttempt.of(attempt) for attempt in attempts]
        return cls(**Delivery.of(delivery).model_dump(), attempts=shown)


class RecoveredDeliveries(Resource):
    """What is sent again by one request."""

    object: Literal["webhook_recovery"] = "webhook_recovery"
    resent: int = Field(description="Deliveries that had failed.")
    added: int = Field(description="Events for which there had been no delivery.")
    has_more: bool = Field(description="Whether there may be more; then ask again.")

    @classmethod
    def of(cls, recovery: Recovery) -> RecoveredDeliveries:
        """The recovery as it is shown."""
        return cls(resent=recovery.resent, added=recovery.added, has_more=recovery.has_more)
