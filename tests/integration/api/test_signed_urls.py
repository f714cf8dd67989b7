"""Addresses of files that need no key."""

from __future__ import annotations

from datetime import datetime

import httpx
import pytest
from sqlalchemy import make_url

from tests.serving import Tenant, refused, serving


def signed(tenant, file, **body):
    response = tenant.http.post(f"/v1/files/{file['id']}/url", json=body or None)
    assert response.status_code == 200, response.text
    return response.json()


@pytest.fixture
def anybody():
    """Somebody without a key."""
    with httpx.Client(verify=False) as client:
        yield client


def at(deployment, seconds):
    """A server by whose clock it is so many seconds later."""
    later = make_url(deployment.settings.api_database_url).update_query_dict(
        {"options": f"-c lockstep.clock_offset=PT{seconds}S"}
    )
    changes = {"api_database_url": later.render_as_string(hide_password=False)}
    return serving(deployment.settings.model_copy(update=changes))


def test_whoever_has_the_address_gets_the_bytes(acme, anybody):
    file = acme.upload()
    answer = signed(acme, file)
    assert answer["object"] == "signed_url"
    content = anybody.get(answer["url"])
    assert (content.status_code, content.headers["content-type"]) == (200, "image/png")
    assert content.content == acme.http.get(file["content_url"]).content


def test_a_signed_address_knows_ranges_and_validators(acme, anybody):
    url = signed(acme, acme.upload())["url"]
    whole = anybody.get(url)
    part = anybody.get(url, headers={"Range": "bytes=1-4"})
    assert (part.status_code, part.content) == (206, whole.content[1:5])
    again = anybody.get(url, headers={"If-None-Match": whole.headers["etag"]})
    assert (again.status_code, again.content) == (304, b"")


def test_a_key_that_is_sent_along_does_no_harm(acme, anybody):
    url = signed(acme, acme.upload())["url"]
    assert anybody.get(url, headers={"Authorization": "Bearer lk_live_nonsense"}).status_code == 200
    assert acme.http.get(url).status_code == 200


def test_an_address_holds_as_long_as_was_asked_for(acme):
    now = acme.deployment.scalar("SELECT lockstep_now()")
    for body, seconds in (({}, 3600), ({"expires_in": 90}, 90)):
        left = datetime.fromisoformat(signed(acme, acme.upload(), **body)["expires_at"]) - now
        assert seconds - 1 <= left.total_seconds() <= seconds + 10


@pytest.mark.parametrize("seconds", [0, -1, 604801, "soon"])
def test_no_other_time_can_be_asked_for(acme, seconds):
    response = acme.http.post(f"/v1/files/{acme.upload()['id']}/url", json={"expires_in": seconds})
    assert refused(response, 422, "validation")["error"]["param"] == "expires_in"


def test_an_altered_signature_is_refused(acme, anybody):
    url = signed(acme, acme.upload())["url"]
    before, signature = url.split("sig=")
    for altered in (f"{before}sig={signature[:-4]}AAAA", f"{before}sig=", f"{before}sig=x.y"):
        refused(anybody.get(altered), 403, "signature-invalid")
    refused(acme.http.get(f"{before}sig=x"), 403, "signature-invalid")


def test_an_address_holds_until_its_time_has_come(acme, anybody, deployment):
    url = signed(acme, acme.upload(), expires_in=600)["url"]
    for seconds, expected in ((500, 200), (700, 403)):
        with at(deployment, seconds) as base_url:
            response = anybody.get(url.replace(acme.base_url, base_url))
        assert response.status_code == expected
    refused(response, 403, "url-expired")


def test_a_signature_is_for_one_file(acme, anybody):
    url, other = signed(acme, acme.upload())["url"], acme.upload()
    refused(anybody.get(f"{other['content_url']}?{url.partition('?')[2]}"), 403, "signature-invalid")


def test_a_signature_opens_nothing_but_the_bytes(acme, anybody):
    url = signed(acme, acme.upload())["url"]
    refused(anybody.get(url.replace("/content", "")), 401, "unauthenticated")


def test_without_a_signature_a_key_is_needed_as_ever(acme, anybody):
    url = acme.upload()["content_url"]
    refused(anybody.get(url), 401, "unauthenticated")
    with acme.client(frozenset({"generate"})) as client:
        refused(client.get(url), 403, "forbidden")


def test_strangers_files_are_not_signed(acme, rival):
    refused(rival.http.post(f"/v1/files/{acme.upload()['id']}/url"), 404, "not-found")


def test_a_deleted_file_is_gone_for_whoever_has_the_address(acme, anybody):
    file = acme.upload()
    url = signed(acme, file)["url"]
    acme.http.delete(f"/v1/files/{file['id']}")
    refused(anybody.get(url), 404, "not-found")


def test_a_server_without_a_secret_signs_nothing(deployment):
    with serving(deployment.settings.model_copy(update={"url_secret": None})) as base_url:
        tenant = Tenant(deployment, base_url, "acme")
        with tenant.http:
            file = tenant.upload()
            problem = refused(tenant.http.post(f"/v1/files/{file['id']}/url"), 409, "conflict")
            assert "LOCKSTEP_URL_SECRET" in problem["detail"]
            refused(tenant.http.get(f"{file['content_url']}?sig=x"), 403, "signature-invalid")
