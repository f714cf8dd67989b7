"""Addresses that events are sent to, and what became of what was sent there."""

from __future__ import annotations

import builtins
from collections.abc import Sequence
from datetime import datetime

from lockstep.models import Page
from lockstep.resources import Resources
from lockstep.webhook_models import WebhookDelivery, WebhookEndpoint, WebhookRecovery, WebhookSecret

_PATH = "/v1/webhook_endpoints"


class WebhookEndpoints(Resources):
    """Addresses that events are sent to."""

    def create(
        self, *, url: str, name: str | None = None, event_types: Sequence[str] = (), in_order: bool | None = None
    ) -> WebhookEndpoint:
        """Have events of these types (every type, if none are named) sent to ``url``.

        Keep the answer's ``signing_secret``: it is told this once, and ``lockstep.webhooks.verify`` needs it.
        ``in_order`` sends a job's next event only when the one before was accepted or given up.
        """
        body = {"url": url, "name": name, "event_types": list(event_types), "in_order": in_order}
        # Tried once: the server keeps no idempotency keys for endpoints, and a second one would double every delivery.
        return WebhookEndpoint.model_validate(self._transport.post(_PATH, body, repeat=False).json())

    def get(self, endpoint_id: str) -> WebhookEndpoint:
        """One endpoint."""
        return WebhookEndpoint.model_validate(self._transport.get(f"{_PATH}/{endpoint_id}").json())

    def list(self, *, limit: int | None = None, after: str | None = None) -> Page[WebhookEndpoint]:
        """Endpoints, newest first."""
        return self._page(_PATH, WebhookEndpoint, {"limit": limit, "after": after})

    def update(
        self,
        endpoint_id: str,
        *,
        url: str | None = None,
        name: str | None = None,
        event_types: builtins.list[str] | None = None,
        in_order: bool | None = None,
    ) -> WebhookEndpoint:
        """Change what is given; no ``event_types`` in the list means every type."""
        body = {"url": url, "name": name, "event_types": event_types, "in_order": in_order}
        return WebhookEndpoint.model_validate(self._transport.post(f"{_PATH}/{endpoint_id}", body).json())

    def delete(self, endpoint_id: str) -> None:
        """Send nothing there any more."""
        self._transport.delete(f"{_PATH}/{endpoint_id}")

    def rotate_secret(self, endpoint_id: str, *, keep_old_for_24_hours: bool = True) -> WebhookEndpoint:
        """Replace the secret; keep the answer's ``signing_secret``. Both sign for a day, unless the old one leaked."""
        body = {"keep_old_secret_active_for_24_hours": keep_old_for_24_hours}
        # Tried once: a second rotation would void the secret that is in use.
        answer = self._transport.post(f"{_PATH}/{endpoint_id}/rotate_secret", body, repeat=False)
        return WebhookEndpoint.model_validate(answer.json())

    def disable(self, endpoint_id: str) -> WebhookEndpoint:
        """Send nothing there until it is enabled; what is owed, and what happens meanwhile, is held."""
        return WebhookEndpoint.model_validate(self._transport.post(f"{_PATH}/{endpoint_id}/disable").json())

    def enable(self, endpoint_id: str) -> WebhookEndpoint:
        """Send there again, beginning with what was held."""
        return WebhookEndpoint.model_validate(self._transport.post(f"{_PATH}/{endpoint_id}/enable").json())

    def test(self, endpoint_id: str) -> WebhookDelivery:
        """Send an event of the type ``webhook_endpoint.test`` there; follow it with ``delivery``."""
        return WebhookDelivery.model_validate(self._transport.post(f"{_PATH}/{endpoint_id}/test").json())

    def deliveries(
        self, endpoint_id: str, *, state: str | None = None, limit: int | None = None, after: str | None = None
    ) -> Page[WebhookDelivery]:
        """What was sent there or is to be, newest first; of a ``state``: pending, held, delivered or failed."""
        params = {"state": state, "limit": limit, "after": after}
        return self._page(f"{_PATH}/{endpoint_id}/deliveries", WebhookDelivery, params)

    def delivery(self, endpoint_id: str, delivery_id: str) -> WebhookDelivery:
        """One delivery with its ``attempts``."""
        answer = self._transport.get(f"{_PATH}/{endpoint_id}/deliveries/{delivery_id}")
        return WebhookDelivery.model_validate(answer.json())

    def resend(self, endpoint_id: str, delivery_id: str) -> WebhookDelivery:
        """Send an event once more, whatever became of it."""
        answer = self._transport.post(f"{_PATH}/{endpoint_id}/deliveries/{delivery_id}/resend")
        return WebhookDelivery.model_validate(answer.json())

    def recover(self, endpoint_id: str, *, since: datetime, until: datetime | None = None) -> WebhookRecovery:
        """Send everything that happened since a time, which needs a zone, and failed or was never sent."""
        body = {"since": since.isoformat(), "until": None if until is None else until.isoformat()}
        resent = added = 0
        while True:
            answer = self._transport.post(f"{_PATH}/{endpoint_id}/recover", body).json()
            resent, added = resent + answer["resent"], added + answer["added"]
            if not answer["has_more"]:
                return WebhookRecovery(resent=resent, added=added)


class WebhookSecrets(Resources):
    """What signs the webhooks that requests name for their jobs; for keys with the scope ``admin``."""

    def get(self) -> WebhookSecret:
        """The tenant's secret; ``lockstep.webhooks.verify`` needs its ``signing_secret``."""
        return WebhookSecret.model_validate(self._transport.get("/v1/webhook_secret").json())

    def rotate(self, *, keep_old_for_24_hours: bool = True) -> WebhookSecret:
        """Replace it. Both sign for a day, unless the old one leaked."""
        body = {"keep_old_secret_active_for_24_hours": keep_old_for_24_hours}
        # Tried once: a second rotation would void the secret that is in use.
        answer = self._transport.post("/v1/webhook_secret/rotate", body, repeat=False)
        return WebhookSecret.model_validate(answer.json())
