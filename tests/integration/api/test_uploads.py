"""Uploads that are announced, sent to signed addresses and completed."""

from __future__ import annotations

import hashlib
import threading
from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest

from core.files import uploads
from core.storage import keys
from tests.integration.api.test_signed_urls import at
from tests.serving import Tenant, created, picture_bytes, refused, serving

PICTURE = picture_bytes((40, 30))


@pytest.fixture
def anybody():
    """Somebody without a key."""
    with httpx.Client(verify=False) as client:
        yield client


@pytest.fixture
def small_parts(monkeypatch):
    monkeypatch.setattr(uploads, "PART_BYTES", 50)


@pytest.fixture(params=["through the API", "straight to the store"])
def sender(request, deployment):
    """A tenant of a server that has bytes sent one way or the other."""
    public = deployment.settings.s3_endpoint if request.param == "straight to the store" else None
    with serving(deployment.settings.model_copy(update={"s3_public_endpoint": public})) as base_url:
        tenant = Tenant(deployment, base_url, "sender")
        with tenant.http:
            yield tenant


def announce(tenant, data=PICTURE, **body):
    wanted = {"name": "holiday/tom.png", "size_bytes": len(data)} | body
    return created(tenant.http.post("/v1/uploads", json=wanted))


def send(upload, data, client):
    start = 0
    for part in upload["parts"]:
        answer = client.put(part["url"], content=data[start : start + part["size_bytes"]])
        assert answer.is_success, answer.text
        start += part["size_bytes"]
    assert start == len(data)


def complete(tenant, upload):
    return tenant.http.post(f"/v1/uploads/{upload['id']}/complete")


def objects_of(tenant):
    """The keys of what is stored of the tenant, without its own prefix."""
    prefix = keys.of_tenant(tenant.id)
    return sorted(key.removeprefix(prefix) for key in tenant.deployment.store.keys_under(prefix))


def test_what_was_announced_and_sent_becomes_a_file(sender, anybody):
    upload = announce(sender, sha256=hashlib.sha256(PICTURE).hexdigest())
    assert (upload["object"], upload["name"], upload["file_id"]) == ("upload", "tom.png", None)
    send(upload, PICTURE, anybody)
    file = created(complete(sender, upload))
    assert (file["purpose"], file["name"], file["width"], file["height"]) == ("picture", "tom.png", 40, 30)
    assert (
        sender.http.get(file["content_url"]).content == sender.http.get(sender.upload(PICTURE)["content_url"]).content
    )
    assert not [key for key in objects_of(sender) if key.startswith("uploads/")]


def test_a_large_one_is_sent_in_parts(sender, anybody, small_parts):
    upload = announce(sender)
    sizes = [part["size_bytes"] for part in upload["parts"]]
    assert (sum(sizes), set(sizes[:-1]), len(sizes) > 1) == (len(PICTURE), {50}, True)
    assert [part["number"] for part in upload["parts"]] == list(range(1, len(sizes) + 1))
    send(upload, PICTURE, anybody)
    assert created(complete(sender, upload))["width"] == 40


def test_no_other_number_of_bytes_is_taken(sender, anybody):
    (part,) = announce(sender)["parts"]
    for wrong in (PICTURE + b"x", PICTURE[:-1], b""):
        assert anybody.put(part["url"], content=wrong).status_code in {400, 403, 422}
    assert objects_of(sender) == []


def test_where_the_store_is_public_bytes_go_straight_there(deployment):
    changes = {"s3_public_endpoint": "https://store.example.com"}
    with serving(deployment.settings.model_copy(update=changes)) as base_url:
        tenant = Tenant(deployment, base_url, "sender")
        with tenant.http:
            (part,) = announce(tenant)["parts"]
    assert part["url"].startswith("https://store.example.com/")


def test_bytes_without_a_declared_length_are_counted(acme, anybody):
    (part,) = announce(acme)["parts"]
    refused(anybody.put(part["url"], content=iter([PICTURE, b"x"])), 422, "upload-mismatch")
    assert anybody.put(part["url"], content=iter([PICTURE[:9], PICTURE[9:]])).status_code == 204


def test_other_bytes_than_announced_are_refused_and_can_be_sent_again(acme, anybody):
    upload = announce(acme, sha256=hashlib.sha256(PICTURE).hexdigest())
    send(upload, picture_bytes((40, 30), colour="green").ljust(len(PICTURE), b"\0")[: len(PICTURE)], anybody)
    assert refused(complete(acme, upload), 422, "upload-mismatch")["error"]["param"] == "sha256"
    send(upload, PICTURE, anybody)
    created(complete(acme, upload))


def test_what_is_no_picture_is_refused_as_ever(acme, anybody):
    data = b"not a picture at all"
    upload = announce(acme, data)
    send(upload, data, anybody)
    refused(complete(acme, upload), 422, "picture-unreadable")
    assert acme.http.get("/v1/files").json()["data"] == []


def test_a_concept_file_is_checked_by_its_header(acme, anybody):
    data = b"not a concept file"
    upload = announce(acme, data, purpose="concept_upload")
    send(upload, data, anybody)
    refused(complete(acme, upload), 422, "concept-unreadable")


def test_a_part_that_is_missing_is_named(acme, anybody, small_parts):
    upload = announce(acme)
    anybody.put(upload["parts"][0]["url"], content=PICTURE[:50])
    assert "Part 2" in refused(complete(acme, upload), 409, "upload-incomplete")["detail"]


def test_completing_it_again_gives_the_same_file(acme, anybody):
    upload = announce(acme)
    send(upload, PICTURE, anybody)
    file = created(complete(acme, upload))
    assert created(complete(acme, upload)) == file
    shown = acme.http.get(f"/v1/uploads/{upload['id']}").json()
    assert (shown["file_id"], shown["parts"]) == (file["id"], [])
    refused(anybody.put(upload["parts"][0]["url"], content=PICTURE), 409, "upload-completed")


def test_completing_it_twice_at_once_makes_one_file(acme, anybody):
    upload = announce(acme)
    send(upload, PICTURE, anybody)
    together = threading.Barrier(4)

    def go(_):
        together.wait()
        return complete(acme, upload)

    with ThreadPoolExecutor(4) as pool:
        answers = list(pool.map(go, range(4)))
    made = {created(answer)["id"] for answer in answers}
    assert {file["id"] for file in acme.http.get("/v1/files").json()["data"]} == made
    assert len(made) == len(objects_of(acme)) == 1


def test_an_upload_can_be_looked_at_and_gone_on_with(acme, anybody):
    upload = announce(acme)
    again = acme.http.get(f"/v1/uploads/{upload['id']}").json()
    assert again == upload
    send(again, PICTURE, anybody)
    created(complete(acme, again))


def test_a_deleted_upload_leaves_nothing(acme, anybody):
    upload = announce(acme)
    send(upload, PICTURE, anybody)
    assert acme.http.delete(f"/v1/uploads/{upload['id']}").status_code == 204
    assert objects_of(acme) == []
    refused(anybody.put(upload["parts"][0]["url"], content=PICTURE), 404, "not-found")
    for response in (complete(acme, upload), acme.http.delete(f"/v1/uploads/{upload['id']}")):
        refused(response, 404, "not-found")


def test_the_file_of_a_deleted_upload_stays(acme, anybody):
    upload = announce(acme)
    send(upload, PICTURE, anybody)
    file = created(complete(acme, upload))
    assert acme.http.delete(f"/v1/uploads/{upload['id']}").status_code == 204
    assert acme.http.get(file["content_url"]).status_code == 200


def test_an_upload_goes_with_its_file(acme, anybody):
    upload = announce(acme)
    send(upload, PICTURE, anybody)
    assert acme.http.delete(f"/v1/files/{created(complete(acme, upload))['id']}").status_code == 204
    refused(complete(acme, upload), 404, "not-found")


def test_an_upload_expires(acme, anybody, deployment):
    upload = announce(acme)
    with at(deployment, 7 * 3600) as later:
        url = upload["parts"][0]["url"].replace(acme.base_url, later)
        refused(anybody.put(url, content=PICTURE), 403, "url-expired")
        headers = {"Authorization": acme.http.headers["Authorization"]}
        refused(anybody.post(f"{later}/v1/uploads/{upload['id']}/complete", headers=headers), 404, "not-found")


def test_a_signature_is_for_one_part_of_one_upload(acme, anybody, small_parts):
    upload, other = announce(acme), announce(acme)
    url = upload["parts"][0]["url"]
    for altered in (
        url.replace("part=1", "part=2"),
        url.replace(upload["id"], other["id"]),
        url[:-4] + "AAAA",
        url.partition("?")[0],
    ):
        refused(anybody.put(altered, content=PICTURE[:50]), 403, "signature-invalid")


def test_bytes_over_the_limit_are_refused_when_they_are_announced(acme):
    body = {"size_bytes": acme.deployment.settings.max_upload_bytes + 1}
    assert refused(acme.http.post("/v1/uploads", json=body), 413, "too-large")["error"]["param"] == "size_bytes"


@pytest.mark.parametrize(
    "body",
    [{}, {"size_bytes": 0}, {"size_bytes": 5, "sha256": "x"}, {"size_bytes": 5, "purpose": "output"}],
    ids=["nothing", "empty", "hash", "purpose"],
)
def test_an_announcement_that_makes_no_sense_is_refused(acme, body):
    refused(acme.http.post("/v1/uploads", json=body), 422, "validation")


def test_room_is_held_for_what_is_announced(deployment):
    with serving(deployment.settings.model_copy(update={"tenant_max_bytes": 1000})) as base_url:
        tenant = Tenant(deployment, base_url, "small")
        with tenant.http:
            first = announce(tenant, bytes(600))
            problem = refused(tenant.http.post("/v1/uploads", json={"size_bytes": 600}), 409, "storage-full")
            assert problem["limit"] == {"name": "storage.bytes", "value": 1000.0, "left": 400.0}
            tenant.http.delete(f"/v1/uploads/{first['id']}")
            announce(tenant, bytes(600))


def test_only_so_many_uploads_are_open_however_many_are_announced_at_once(acme, monkeypatch):
    monkeypatch.setattr(uploads, "MOST_OPEN", 3)
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda _: acme.http.post("/v1/uploads", json={"size_bytes": 5}), range(8)))
    assert sorted(answer.status_code for answer in answers) == [201] * 3 + [409] * 5
    assert {answer.json()["limit"]["name"] for answer in answers if answer.status_code == 409} == {"uploads.open"}
    assert acme.http.get("/v1/limits").json()["open_uploads"] == {"limit": 3, "used": 3}


def test_an_announcement_under_one_key_is_made_once(acme):
    headers = {"Idempotency-Key": "k"}
    first, again = (acme.http.post("/v1/uploads", json={"size_bytes": 5}, headers=headers) for _ in range(2))
    assert created(again) == created(first)
    assert again.headers["idempotent-replayed"] == "true"


def test_announcing_takes_the_right_to_upload(acme, rival):
    with acme.client(frozenset({"read", "generate"})) as client:
        refused(client.post("/v1/uploads", json={"size_bytes": 5}), 403, "forbidden")
    upload = announce(acme)
    for response in (complete(rival, upload), rival.http.get(f"/v1/uploads/{upload['id']}")):
        refused(response, 404, "not-found")
