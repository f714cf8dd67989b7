"""Uploading, reading and deleting files."""

from __future__ import annotations

import hashlib
import io

import pytest
from PIL import Image

from tests.serving import picture_bytes, refused


def test_an_upload_is_described_and_can_be_downloaded(acme):
    file = acme.upload(picture_bytes((40, 30)), name="holiday/tom.png")
    assert (file["object"], file["purpose"], file["name"]) == ("file", "picture", "tom.png")
    assert (file["media_type"], file["width"], file["height"], file["job_id"]) == ("image/png", 40, 30, None)
    assert acme.http.get(f"/v1/files/{file['id']}").json() == file
    content = acme.http.get(file["content_url"])
    assert (content.status_code, content.headers["content-type"]) == (200, "image/png")
    assert (len(content.content), hashlib.sha256(content.content).hexdigest()) == (file["size_bytes"], file["sha256"])


def test_an_upload_tells_where_it_is(acme):
    response = acme.http.post("/v1/files", files={"file": ("tom.png", picture_bytes())})
    assert acme.http.get(response.headers["location"]).json() == response.json()


def test_metadata_is_gone_and_orientation_applied(acme):
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was turned
    exif[0x010E] = "secret place"
    file = acme.upload(picture_bytes((40, 30), format="JPEG", exif=exif), name="tom.jpg")
    assert (file["width"], file["height"]) == (30, 40)
    content = acme.http.get(file["content_url"]).content
    assert b"secret place" not in content
    assert not Image.open(io.BytesIO(content)).getexif()


def test_what_counts_is_the_content_not_the_name_or_the_declared_type(acme):
    honest = acme.http.post("/v1/files", files={"file": ("tom.txt", picture_bytes(), "text/plain")})
    assert honest.status_code == 201
    liar = acme.http.post("/v1/files", files={"file": ("tom.png", b"#!/bin/sh", "image/png")})
    assert refused(liar, 422, "picture-unreadable")["error"]["param"] == "file"


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (b"", "picture-unreadable"),
        (b"not a picture at all", "picture-unreadable"),
        (picture_bytes((64, 64))[:-30], "picture-unreadable"),
        (picture_bytes((64, 64), format="JPEG")[:300], "picture-unreadable"),
        (b"<svg xmlns='http://www.w3.org/2000/svg'/>", "picture-unreadable"),
        (picture_bytes((9000, 9000)), "picture-too-large"),  # 240 KB that would become 240 MB
    ],
    ids=["zero-byte", "no-picture", "truncated-png", "truncated-jpeg", "svg", "bomb"],
)
def test_what_is_no_sound_picture_is_refused_and_nothing_is_kept(acme, data, code):
    refused(acme.http.post("/v1/files", files={"file": ("tom.png", data)}), 422, code)
    assert acme.http.get("/v1/files").json()["data"] == []


def test_a_request_without_the_file_says_so(acme):
    assert refused(acme.http.post("/v1/files"), 422, "validation")["error"]["param"] == "file"
    as_text = acme.http.post("/v1/files", data={"file": "text"})
    assert refused(as_text, 422, "validation")["error"]["param"] == "file"


def test_a_body_over_the_limit_is_refused_by_its_declared_length(acme):
    body = b"x" * (21 * 1024 * 1024)
    refused(acme.http.post("/v1/files", files={"file": ("tom.png", body)}), 413, "too-large")


def test_a_body_over_the_limit_is_refused_while_it_streams(acme):
    def chunks():
        yield b'--b\r\nContent-Disposition: form-data; name="file"; filename="tom.png"\r\n\r\n'
        for _ in range(25):
            yield b"x" * (1024 * 1024)

    headers = {"Content-Type": "multipart/form-data; boundary=b"}
    refused(acme.http.post("/v1/files", content=chunks(), headers=headers), 413, "too-large")


def test_files_are_listed_newest_first_in_pages(acme):
    ids = [acme.upload()["id"] for _ in range(5)][::-1]
    first = acme.http.get("/v1/files", params={"limit": 2}).json()
    assert ([file["id"] for file in first["data"]], first["has_more"]) == (ids[:2], True)
    assert (first["object"], first["first_id"], first["last_id"]) == ("list", ids[0], ids[1])
    second = acme.http.get("/v1/files", params={"limit": 2, "after": first["last_id"]}).json()
    assert [file["id"] for file in second["data"]] == ids[2:4]
    last = acme.http.get("/v1/files", params={"limit": 2, "after": second["last_id"]}).json()
    assert ([file["id"] for file in last["data"]], last["has_more"]) == (ids[4:], False)
    back = acme.http.get("/v1/files", params={"limit": 2, "before": ids[3]}).json()
    assert ([file["id"] for file in back["data"]], back["has_more"]) == (ids[1:3], True)


@pytest.mark.parametrize(
    ("params", "status", "code", "param"),
    [
        ({"limit": 0}, 422, "validation", "limit"),
        ({"limit": 101}, 422, "validation", "limit"),
        ({"after": "file_1", "before": "file_2"}, 422, "validation", "before"),
        ({"after": "file_gone"}, 404, "not-found", "after"),
        ({"purpose": "virus"}, 422, "validation", "purpose"),
    ],
)
def test_a_page_that_makes_no_sense_is_refused(acme, params, status, code, param):
    assert refused(acme.http.get("/v1/files", params=params), status, code)["error"]["param"] == param


def test_files_are_listed_by_purpose(acme):
    acme.upload()
    job = acme.generate()
    acme.deployment.succeed(acme.deployment.claim(job["id"]))
    outputs = acme.http.get("/v1/files", params={"purpose": "output"}).json()["data"]
    assert [(file["purpose"], file["job_id"]) for file in outputs] == [("output", job["id"])]


@pytest.mark.parametrize(
    ("sent", "first", "last"), [("bytes=0-9", 0, 9), ("bytes=5-", 5, None), ("bytes=-7", -7, None)]
)
def test_a_range_is_answered_with_that_part(acme, sent, first, last):
    file = acme.upload()
    whole = acme.http.get(file["content_url"]).content
    part = acme.http.get(file["content_url"], headers={"Range": sent})
    assert part.status_code == 206
    assert part.content == whole[first : None if last is None else last + 1]
    begin = first % len(whole)
    end = len(whole) - 1 if last is None else last
    assert part.headers["content-range"] == f"bytes {begin}-{end}/{len(whole)}"


def test_a_range_outside_of_the_file_cannot_be_satisfied(acme):
    file = acme.upload()
    response = acme.http.get(file["content_url"], headers={"Range": "bytes=1000000-"})
    refused(response, 416, "range-not-satisfiable")
    assert response.headers["content-range"] == f"bytes */{file['size_bytes']}"


def test_content_that_the_client_has_is_not_sent_again(acme):
    file = acme.upload()
    etag = acme.http.get(file["content_url"]).headers["etag"]
    again = acme.http.get(file["content_url"], headers={"If-None-Match": etag})
    assert (again.status_code, again.content) == (304, b"")
    stale = {"Range": "bytes=0-3", "If-Range": '"another"'}
    assert acme.http.get(file["content_url"], headers=stale).status_code == 200


def test_a_deleted_file_is_gone_with_its_bytes(acme):
    file = acme.upload()
    key = acme.deployment.scalar("SELECT key FROM files WHERE id = :id", id=file["id"])
    assert acme.http.delete(f"/v1/files/{file['id']}").status_code == 204
    for path in ("", "/content"):
        refused(acme.http.get(f"/v1/files/{file['id']}{path}"), 404, "not-found")
    refused(acme.http.delete(f"/v1/files/{file['id']}"), 404, "not-found")
    listed = acme.deployment.store._client.list_objects_v2(Bucket=acme.deployment.settings.s3_bucket, Prefix=key)
    assert listed["KeyCount"] == 0


def test_a_concepts_file_cannot_be_deleted_under_it(acme):
    acme.trained()
    file = acme.http.get("/v1/files", params={"purpose": "concept"}).json()["data"][0]
    refused(acme.http.delete(f"/v1/files/{file['id']}"), 409, "conflict")
