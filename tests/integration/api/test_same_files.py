"""The same picture twice: files of their own on one object; and one request that is sent twice."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
from PIL import Image
from sqlalchemy import text

from core.storage import keys
from tests.serving import created, picture_bytes, refused

PICTURE = picture_bytes((40, 30))


def objects_of(tenant):
    return sorted(tenant.deployment.store.keys_under(keys.of_tenant(tenant.id)))


def together(number, act):
    """Let so many do it at the same moment."""
    start = threading.Barrier(number)

    def go(index):
        start.wait()
        return act(index)

    with ThreadPoolExecutor(number) as pool:
        return list(pool.map(go, range(number)))


def post(tenant, key=None, data=PICTURE, name="tom.png", **headers):
    given = {"Idempotency-Key": key} if key else {}
    return tenant.http.post("/v1/files", files={"file": (name, data)}, headers=given | headers)


def test_the_same_picture_twice_is_two_files_on_one_object(acme):
    first, second = acme.upload(PICTURE, "a.png"), acme.upload(PICTURE, "b.png")
    assert first["id"] != second["id"]
    assert (first["name"], second["name"]) == ("a.png", "b.png")
    assert len(objects_of(acme)) == 1
    assert acme.http.get(second["content_url"]).content == acme.http.get(first["content_url"]).content


def test_what_counts_is_the_picture_not_how_it_was_sent(acme):
    exif = Image.Exif()
    exif[0x010E] = "secret place"
    acme.upload(picture_bytes((40, 30), exif=exif))
    acme.upload(picture_bytes((40, 30), compress_level=1))
    assert len(objects_of(acme)) == 1
    acme.upload(picture_bytes((40, 30), colour="green"))
    assert len(objects_of(acme)) == 2


def test_the_bytes_go_with_the_last_file_that_has_them(acme):
    files = [acme.upload(PICTURE) for _ in range(3)]
    for file, left in zip(files, (1, 1, 0), strict=True):
        assert acme.http.get(file["content_url"]).status_code == 200
        assert acme.http.delete(f"/v1/files/{file['id']}").status_code == 204
        refused(acme.http.get(file["content_url"]), 404, "not-found")
        assert len(objects_of(acme)) == left


def test_tenants_share_nothing(acme, rival):
    mine, theirs = acme.upload(PICTURE), rival.upload(PICTURE)
    assert len(objects_of(acme)) == len(objects_of(rival)) == 1
    acme.http.delete(f"/v1/files/{mine['id']}")
    assert rival.http.get(theirs["content_url"]).status_code == 200


def test_uploads_at_once_share_one_object(acme):
    answers = together(6, lambda _: post(acme))
    assert len({created(answer)["id"] for answer in answers}) == 6
    assert len(objects_of(acme)) == 1


def test_deletions_at_once_leave_nothing(acme):
    files = [acme.upload(PICTURE) for _ in range(6)]
    answers = together(6, lambda index: acme.http.delete(f"/v1/files/{files[index]['id']}"))
    assert {answer.status_code for answer in answers} == {204}
    assert objects_of(acme) == []


def test_no_file_loses_its_bytes_to_a_deletion_beside_it(acme):
    for _ in range(4):
        last = acme.upload(PICTURE)

        def act(index, last=last):
            return post(acme) if index else acme.http.delete(f"/v1/files/{last['id']}")

        deleted, *made = together(4, act)
        assert deleted.status_code == 204
        for answer in made:
            file = created(answer)
            assert acme.http.get(file["content_url"]).status_code == 200
            acme.http.delete(f"/v1/files/{file['id']}")
    assert objects_of(acme) == []


def test_a_picture_that_is_being_deleted_is_shared_no_more(acme):
    old = acme.upload(PICTURE)
    with acme.deployment.owner.begin() as connection:
        connection.execute(text("UPDATE files SET deleting = true WHERE id = :id"), {"id": old["id"]})
    acme.upload(PICTURE)
    assert len(objects_of(acme)) == 2


def test_an_upload_under_one_key_is_made_once(acme):
    first, again = post(acme, "k"), post(acme, "k")
    assert created(again) == created(first)
    assert again.headers["idempotent-replayed"] == "true"
    assert again.headers["location"] == first.headers["location"]
    assert len(acme.http.get("/v1/files").json()["data"]) == len(objects_of(acme)) == 1


@pytest.mark.parametrize("other", [{"data": picture_bytes((8, 8))}, {"name": "rex.png"}], ids=["bytes", "name"])
def test_a_key_is_for_one_upload(acme, other):
    created(post(acme, "k"))
    refused(post(acme, "k", **other), 422, "idempotency-key-reused")


def test_a_retry_that_says_so_gets_the_first_answer(acme):
    first = created(post(acme))
    assert created(post(acme, **{"x-stainless-retry-count": "1"})) == first
    assert created(post(acme))["id"] != first["id"]


def test_uploads_under_one_key_at_once_make_one_file(acme):
    def patiently(_):
        while (answer := post(acme, "k")).status_code == 409:
            refused(answer, 409, "idempotency-in-progress")
        return answer

    answers = together(6, patiently)
    assert len({created(answer)["id"] for answer in answers}) == 1
    assert len(acme.http.get("/v1/files").json()["data"]) == len(objects_of(acme)) == 1


def test_what_was_refused_leaves_the_key_free(acme):
    refused(post(acme, "k", data=b"no picture"), 422, "picture-unreadable")
    created(post(acme, "k"))
