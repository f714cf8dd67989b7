from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import UTC, datetime

import httpx
import pytest
from standardwebhooks import Webhook

from infra.demo.receiver import Receiver

SECRET = "whsec_" + "c2VjcmV0IGZvciB0ZXN0cyBvbmx5ISE="


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with Receiver() as listening:
        listening.expect(SECRET)
        yield listening


def deliver(receiver: Receiver, event_id: str, *, secret: str = SECRET, header_id: str | None = None) -> int:
    body, at = json.dumps({"id": event_id, "type": "training.queued"}), datetime.now(UTC)
    named = header_id or event_id
    headers = {
        "webhook-id": named,
        "webhook-timestamp": str(int(at.timestamp())),
        "webhook-signature": Webhook(secret).sign(named, at, body),
    }
    return httpx.post(receiver.url, content=body, headers=headers).status_code


def test_a_signed_delivery_is_verified(receiver: Receiver):
    assert deliver(receiver, "evt_1") == 204
    assert (receiver.verified, receiver.duplicates, receiver.rejected) == (1, 0, [])


def test_a_delivery_under_another_secret_is_rejected(receiver: Receiver):
    assert deliver(receiver, "evt_1", secret="whsec_" + "YW5vdGhlciBzZWNyZXQgZW50aXJlbHk=") == 400
    assert receiver.verified == 0
    assert len(receiver.rejected) == 1


def test_a_signed_body_of_another_event_is_rejected(receiver: Receiver):
    assert deliver(receiver, "evt_1", header_id="evt_2") == 400


def test_an_unsigned_request_is_rejected(receiver: Receiver):
    assert httpx.post(receiver.url, content=b"{}").status_code == 400


def test_nothing_is_believed_before_the_secret_is_known():
    with Receiver() as receiver:
        assert deliver(receiver, "evt_1") == 400


def test_an_event_that_comes_again_is_a_duplicate(receiver: Receiver):
    deliver(receiver, "evt_1")
    assert deliver(receiver, "evt_1") == 204
    assert (receiver.verified, receiver.duplicates) == (1, 1)


def test_waiting_names_the_events_that_did_not_come(receiver: Receiver):
    deliver(receiver, "evt_1")
    assert receiver.wait_for(["evt_1"], seconds=10) == set()
    assert receiver.wait_for(["evt_1", "evt_2"], seconds=0) == {"evt_2"}
