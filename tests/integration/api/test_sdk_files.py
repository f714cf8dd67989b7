"""The SDK's side of addresses that need no key, and of webhooks of single jobs, on the real server."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from core.files import uploads
from core.storage import keys
from lockstep import Conflict, Invalid, Lockstep, NotFound
from tests.serving import SCOPES, Deployment, Tenant, picture_bytes, serving

PICTURE = picture_bytes((40, 30))


def client(tenant: Tenant) -> Lockstep:
    return Lockstep(base_url=tenant.base_url, api_key=tenant.deployment.new_key(tenant.id, SCOPES))


@pytest.fixture
def lockstep(acme: Tenant) -> Iterator[Lockstep]:
    with client(acme) as made:
        yield made


def test_a_file_is_shown_to_somebody_without_a_key(lockstep: Lockstep):
    file = lockstep.files.upload(PICTURE)
    signed = lockstep.files.sign_url(file.id, expires_in=60)
    assert signed.expires_at > file.created_at
    assert httpx.get(signed.url, verify=False).content == lockstep.files.content(file.id)


def test_an_upload_under_one_key_is_made_once(lockstep: Lockstep):
    made = [lockstep.files.upload(PICTURE, idempotency_key="k").id for _ in range(2)]
    assert made[0] == made[1]


def test_a_file_is_sent_in_parts_from_its_path(
    lockstep: Lockstep, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, acme: Tenant
):
    monkeypatch.setattr(uploads, "PART_BYTES", 50)
    (tmp_path / "tom.png").write_bytes(PICTURE)
    file = lockstep.uploads.send(tmp_path / "tom.png")
    assert (file.name, file.width, file.height) == ("tom.png", 40, 30)
    assert len(list(acme.deployment.store.keys_under(keys.of_tenant(acme.id)))) == 1


def test_a_file_goes_straight_to_the_store_without_the_key(deployment: Deployment):
    changes = {"s3_public_endpoint": deployment.settings.s3_endpoint}
    with serving(deployment.settings.model_copy(update=changes)) as base_url:
        tenant = Tenant(deployment, base_url, "acme")
        with tenant.http, client(tenant) as lockstep:
            upload = lockstep.uploads.create(size_bytes=len(PICTURE))
            assert upload.parts[0].url.startswith(str(deployment.settings.s3_endpoint))
            lockstep.uploads.send_parts(upload, PICTURE)
            assert lockstep.uploads.complete(upload.id).width == 40


def test_the_key_is_not_sent_to_a_signed_address():
    seen: list[httpx.Request] = []

    def answer(request: httpx.Request) -> httpx.Response:
        seen.append(request)
        made = {"id": "upl_1", "purpose": "picture", "name": "x", "size_bytes": 3}
        times = {"created_at": "2026-01-01T00:00Z", "expires_at": "2026-01-01T06:00Z"}
        parts = [{"number": 1, "size_bytes": 3, "url": "https://store.example/part?sig=x"}]
        return httpx.Response(201, json={**made, **times, "parts": parts})

    with Lockstep(base_url="http://server", api_key="k", transport=httpx.MockTransport(answer)) as lockstep:
        lockstep.uploads.send_parts(lockstep.uploads.create(size_bytes=3), b"abc")
    assert [("authorization" in request.headers) for request in seen] == [True, False]
    assert (str(seen[1].url), seen[1].content) == ("https://store.example/part?sig=x", b"abc")


def test_what_is_wrong_with_an_upload_is_told(lockstep: Lockstep):
    upload = lockstep.uploads.create(size_bytes=len(PICTURE), sha256="0" * 64)
    with pytest.raises(Conflict) as missing:
        lockstep.uploads.complete(upload.id)
    assert missing.value.code == "upload-incomplete"
    lockstep.uploads.send_parts(upload, PICTURE)
    with pytest.raises(Invalid) as other:
        lockstep.uploads.complete(upload.id)
    assert other.value.code == "upload-mismatch"
    assert lockstep.uploads.get(upload.id) == upload
    lockstep.uploads.delete(upload.id)
    with pytest.raises(NotFound):
        lockstep.uploads.get(upload.id)


def test_a_job_has_a_webhook_of_its_own_and_a_secret_that_verifies_it(lockstep: Lockstep):
    webhook = {"url": "https://example.com/1", "event_types": ["generation.succeeded"]}
    job = lockstep.generations.create(prompt="a cat", webhook=webhook)
    assert job.webhook is not None
    assert (job.webhook.url, job.webhook.event_types) == (webhook["url"], ("generation.succeeded",))
    assert lockstep.webhook_endpoints.get(job.webhook.endpoint_id).on_request
    secret = lockstep.webhook_secret.get()
    assert secret.signing_secret not in repr(secret)
    assert lockstep.webhook_secret.rotate().previous_secret_expires_at is not None
    assert lockstep.webhook_secret.get().signing_secret != secret.signing_secret
