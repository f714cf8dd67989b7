"""Checking that a webhook comes from the server and was not changed or replayed on the way."""

from __future__ import annotations

from collections.abc import Mapping

from standardwebhooks import Webhook, WebhookVerificationError

from lockstep.errors import WebhookRejected
from lockstep.models import Event


def verify(headers: Mapping[str, str], body: bytes, secret: str) -> Event:
    """Return the event that a webhook carries.

    ``headers`` are the request's, in any case; ``body`` is the raw body, before any parsing; ``secret`` is the
    endpoint's, ``whsec_...``. An event may arrive more than once: act once per ``event.id``.

    Raises:
        WebhookRejected: when the signature or the body does not hold, or the timestamp is over five minutes away.
    """
    checker = Webhook(secret)
    try:
        checker.verify(body, {name.lower(): value for name, value in headers.items()})
        return Event.model_validate_json(body)
    except (WebhookVerificationError, ValueError) as error:  # ValueError: malformed base64, UTF-8, JSON or event
        raise WebhookRejected(str(error)) from error
