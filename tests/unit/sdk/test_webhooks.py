from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta

import pytest
from standardwebhooks import Webhook

from lockstep import WebhookRejected, webhooks

SECRET = "whsec_" + "c2VjcmV0IGZvciB0ZXN0cyBvbmx5ISE="
BODY = json.dumps(
    {
        "id": "evt_1",
        "object": "event",
        "type": "training.succeeded",
        "created_at": 1767225600,
        "sequence": 3,
        "data": {},
    }
).encode()


def signed(body: bytes = BODY, *, at: datetime | None = None) -> dict[str, str]:
    at = at or datetime.now(UTC)
    signature = Webhook(SECRET).sign("evt_1", at, body.decode())
    return {"Webhook-Id": "evt_1", "Webhook-Timestamp": str(int(at.timestamp())), "Webhook-Signature": signature}


def test_a_signed_webhook_is_its_event():
    event = webhooks.verify(signed(), BODY, SECRET)
    assert (event.id, event.type, event.is_terminal) == ("evt_1", "training.succeeded", True)


def test_a_changed_body_is_rejected():
    with pytest.raises(WebhookRejected):
        webhooks.verify(signed(), BODY.replace(b"succeeded", b"failed"), SECRET)


def test_an_old_webhook_is_rejected():
    with pytest.raises(WebhookRejected, match="too old"):
        webhooks.verify(signed(at=datetime.now(UTC) - timedelta(minutes=6)), BODY, SECRET)


@pytest.mark.parametrize("header", ["Webhook-Id", "Webhook-Timestamp", "Webhook-Signature"])
def test_a_webhook_without_one_of_its_headers_is_rejected(header: str):
    headers = signed()
    del headers[header]
    with pytest.raises(WebhookRejected):
        webhooks.verify(headers, BODY, SECRET)


@pytest.mark.parametrize("signature", ["v1", "v1,!", "", "v2,AAAA"])
def test_a_malformed_signature_is_rejected(signature: str):
    with pytest.raises(WebhookRejected):
        webhooks.verify(signed() | {"Webhook-Signature": signature}, BODY, SECRET)


def test_a_signed_body_that_is_no_event_is_rejected():
    with pytest.raises(WebhookRejected):
        webhooks.verify(signed(b"{}"), b"{}", SECRET)
