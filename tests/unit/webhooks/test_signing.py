from __future__ import annotations

import base64
import string
from datetime import UTC, datetime, timedelta, timezone

import pytest
from standardwebhooks import Webhook, WebhookVerificationError

from core.webhooks.signing import hint, new_secret, sign

BODY = '{"type":"generation.succeeded","data":{"prompt":"köttbullar"}}'.encode()


def test_the_specifications_library_verifies_a_signed_body():
    secret = new_secret()
    headers = sign([secret], "evt_1", datetime.now(UTC), BODY)
    assert Webhook(secret).verify(BODY, headers)["type"] == "generation.succeeded"
    assert headers["webhook-id"] == "evt_1"


def test_a_timestamp_in_another_zone_is_the_same_moment():
    now = datetime.now(UTC)
    abroad = now.astimezone(timezone(timedelta(hours=9)))
    secret = new_secret()
    assert sign([secret], "evt_1", abroad, BODY) == sign([secret], "evt_1", now, BODY)


@pytest.mark.parametrize("changed", ["webhook-id", "webhook-timestamp", "body", "secret"])
def test_nothing_signed_can_be_changed(changed: str):
    secret, body = new_secret(), BODY
    headers = sign([secret], "evt_1", datetime.now(UTC), BODY)
    if changed == "body":
        body += b" "
    elif changed == "secret":
        secret = new_secret()
    else:
        headers[changed] = headers[changed][:-1] + ("1" if headers[changed][-1] != "1" else "2")
    with pytest.raises(WebhookVerificationError):
        Webhook(secret).verify(body, headers)


def test_an_old_attempt_is_refused_by_receivers():
    secret = new_secret()
    with pytest.raises(WebhookVerificationError, match="too old"):
        Webhook(secret).verify(BODY, sign([secret], "evt_1", datetime.now(UTC) - timedelta(minutes=6), BODY))


def test_a_secret_is_padded_standard_base64_of_32_random_bytes():
    secrets = {new_secret() for _ in range(50)}
    assert len(secrets) == 50
    for secret in secrets:
        encoded = secret.removeprefix("whsec_")
        assert len(base64.b64decode(encoded, validate=True)) == 32
        assert set(encoded) <= set(string.ascii_letters + string.digits + "+/=")


def test_each_live_secret_gives_a_signature_the_newest_first():
    new, old = new_secret(), new_secret()
    now = datetime.now(UTC)
    by_both, by_new, by_old = (
        sign(live, "evt_1", now, BODY)["webhook-signature"] for live in ([new, old], [new], [old])
    )
    assert by_both == f"{by_new} {by_old}"


def test_a_hint_tells_secrets_apart_and_keeps_them():
    secret = new_secret()
    assert hint(secret) == f"whsec_...{secret[-4:]}"
