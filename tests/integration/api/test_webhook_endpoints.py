"""Webhook endpoints as their tenant manages them."""

from __future__ import annotations

import pytest

from tests.serving import created, refused

URL = "https://hooks.example.com/lockstep"


def endpoint(tenant, **changes):
    return created(tenant.http.post("/v1/webhook_endpoints", json={"url": URL} | changes))


def test_the_secret_is_shown_once(acme):
    made = endpoint(acme, name="mine", event_types=["generation.succeeded"])
    assert made["signing_secret"].startswith("whsec_")
    shown = acme.http.get(f"/v1/webhook_endpoints/{made['id']}").json()
    assert shown == {name: value for name, value in made.items() if name != "signing_secret"}
    assert acme.http.get("/v1/webhook_endpoints").json()["data"] == [shown]
    assert (shown["object"], shown["name"], shown["url"]) == ("webhook_endpoint", "mine", URL)


def test_an_endpoint_is_changed_where_it_is_told_to(acme):
    made = endpoint(acme, name="mine")
    path = f"/v1/webhook_endpoints/{made['id']}"
    changed = acme.http.post(
        path, json={"url": "https://other.example.com/", "event_types": ["training.failed"]}
    ).json()
    assert (changed["name"], changed["url"]) == ("mine", "https://other.example.com/")
    assert changed == acme.http.get(path).json()


def test_a_deleted_endpoint_is_gone(acme):
    path = f"/v1/webhook_endpoints/{endpoint(acme)['id']}"
    assert acme.http.delete(path).status_code == 204
    for response in (acme.http.get(path), acme.http.delete(path), acme.http.post(path, json={})):
        refused(response, 404, "not-found")
    assert acme.http.get("/v1/webhook_endpoints").json()["data"] == []


@pytest.mark.parametrize(
    ("body", "code", "param"),
    [
        ({"url": "https://10.0.0.1/"}, "webhook-target-refused", "url"),
        ({"url": "ftp://example.com/"}, "webhook-target-refused", "url"),
        ({"url": URL, "event_types": ["generation.exploded"]}, "validation", "event_types"),
        ({"url": URL, "name": "a\0"}, "validation", "name"),
        ({}, "validation", "url"),
    ],
)
def test_an_endpoint_that_could_not_be_served_is_refused(acme, body, code, param):
    response = acme.http.post("/v1/webhook_endpoints", json=body)
    assert refused(response, 422, code)["error"]["param"] == param


def test_what_is_owed_to_an_endpoint_is_listed(acme):
    made = endpoint(acme, event_types=["generation.queued"])
    acme.train()
    jobs = [acme.generate()["id"] for _ in range(3)]
    path = f"/v1/webhook_endpoints/{made['id']}/deliveries"
    page = acme.http.get(path, params={"limit": 2}).json()
    rest = acme.http.get(path, params={"after": page["last_id"]}).json()
    owed = page["data"] + rest["data"]
    assert (page["has_more"], [delivery["state"] for delivery in owed]) == (True, ["pending"] * 3)
    events = acme.http.get("/v1/events", params={"type": "generation.queued"}).json()["data"]
    assert [delivery["event_id"] for delivery in owed] == [event["id"] for event in events][::-1]
    assert [event["data"]["id"] for event in events] == jobs
    refused(acme.http.get("/v1/webhook_endpoints/we_gone/deliveries"), 404, "not-found")
