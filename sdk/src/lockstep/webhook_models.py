"""What the server answers of webhooks, typed and frozen as in ``models``."""

from __future__ import annotations

from datetime import datetime

from pydantic import Field

from lockstep.models import Resource


class WebhookEndpoint(Resource):
    """An address that events are sent to; no ``event_types`` means every type."""

    id: str
    name: str
    url: str
    event_types: tuple[str, ...] = ()
    in_order: bool = False
    on_request: bool = False  # it stands for the webhooks of jobs to a host
    created_at: datetime
    signing_secret: str | None = None  # told once, when it is made
    signing_secret_hint: str | None = None
    previous_secret_expires_at: datetime | None = None
    failing_since: datetime | None = None
    quiet_until: datetime | None = None
    disabled_at: datetime | None = None
    disabled_reason: str | None = None  # requested, gone or failing


class WebhookSecret(Resource):
    """What signs the webhooks that requests name."""

    signing_secret: str = Field(repr=False)
    previous_secret_expires_at: datetime | None = None


class WebhookAttempt(Resource):
    """One request of a delivery; ``error`` says what was wrong, None that it was accepted."""

    attempt: int
    at: datetime
    status: int | None = None
    error: str | None = None
    duration_ms: int


class WebhookDelivery(Resource):
    """One event owed to one endpoint; ``attempts`` are told of a single one only."""

    id: str
    event_id: str
    event_type: str
    state: str  # pending, held, delivered or failed
    attempt: int
    next_attempt_at: datetime | None = None
    created_at: datetime
    delivered_at: datetime | None = None
    attempts: tuple[WebhookAttempt, ...] = ()


class WebhookRecovery(Resource):
    """How many deliveries are sent again: those that had failed, and those that there had never been."""

    resent: int
    added: int
