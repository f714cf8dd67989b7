"""Signing deliveries by the Standard Webhooks specification, with its own library."""

from __future__ import annotations

import base64
import secrets
from collections.abc import Iterable
from datetime import UTC, datetime

from standardwebhooks import Webhook

_PREFIX = "whsec_"
_SECRET_BYTES = 32  # the most that every verifying library takes; the specification allows 24 to 64


def new_secret() -> str:
    """A fresh secret. Standard base64 with padding: some libraries read nothing else."""
    return _PREFIX + base64.b64encode(secrets.token_bytes(_SECRET_BYTES)).decode()


def sign(live: Iterable[str], event_id: str, timestamp: datetime, body: bytes) -> dict[str, str]:
    """The three headers of one attempt, with a signature by each secret that is ``live``, the newest first.

    ``timestamp`` is the attempt's, the id is the event's on every retry.
    """
    sent_at = timestamp.astimezone(UTC)  # the library takes any time for UTC, whatever its zone says
    return {
        "webhook-id": event_id,
        "webhook-timestamp": str(int(sent_at.timestamp())),
        "webhook-signature": " ".join(Webhook(secret).sign(event_id, sent_at, body.decode()) for secret in live),
    }


def hint(secret: str) -> str:
    """Enough of a secret to tell it from others, and too little to sign with."""
    return f"{_PREFIX}...{secret[-4:]}"
