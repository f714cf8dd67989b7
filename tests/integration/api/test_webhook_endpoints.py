"""Webhook endpoints as their tenant manages them."""

from __future__ import annotations

import pytest

from core.webhooks.subscriptions import MOST_ENDPOINTS
from tests.serving import created, refused

URL = "https://hooks.example.com/lockstep"


def endpoint(tenant, **changes):
    return created(tenant.http.post("/v1/webhook_endpoints", json={"url": URL} | changes))


def owing(tenant, count=1):
    """The path of an endpoint, and what is owed to it, newest first."""
    made = endpoint(tenant, event_types=["generation.queued"])
    for _ in range(count):
        tenant.generate()
    path = f"/v1/webhook_endpoints/{made['id']}"
    return path, tenant.http.get(f"{path}/deliveries").json()["data"]


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


def test_a_new_endpoint_is_enabled_and_tells_its_secret_from_others(acme):
    made = endpoint(acme, in_order=True)
    assert made["signing_secret_hint"] == f"whsec_...{made['signing_secret'][-4:]}"
    assert made["in_order"] is True
    assert [made[name] for name in ("disabled_at", "disabled_reason", "failing_since", "quiet_until")] == [None] * 4


@pytest.mark.parametrize(("body", "overlaps"), [(None, True), ({"keep_old_secret_active_for_24_hours": False}, False)])
def test_a_rotated_secret_is_shown_once_and_the_old_one_signs_for_a_day_unless_told_otherwise(acme, body, overlaps):
    made = endpoint(acme)
    path = f"/v1/webhook_endpoints/{made['id']}"
    rotated = acme.http.post(f"{path}/rotate_secret", json=body).json()
    assert rotated["signing_secret"] not in {made["signing_secret"], None}
    assert (rotated["previous_secret_expires_at"] is not None) is overlaps
    shown = acme.http.get(path).json()
    assert shown == {name: value for name, value in rotated.items() if name != "signing_secret"}


def test_an_endpoint_is_disabled_and_enabled(acme):
    path, _ = owing(acme)
    disabled = acme.http.post(f"{path}/disable").json()
    assert (disabled["disabled_reason"], disabled["disabled_at"] is not None) == ("requested", True)
    held = acme.http.get(f"{path}/deliveries", params={"state": "held"}).json()["data"]
    assert [(delivery["state"], delivery["next_attempt_at"]) for delivery in held] == [("held", None)]
    told = acme.http.get("/v1/events", params={"type": "webhook_endpoint.disabled"}).json()["data"]
    assert [(event["sequence"], event["data"]["disabled_reason"]) for event in told] == [(1, "requested")]
    enabled = acme.http.post(f"{path}/enable").json()
    assert (enabled["disabled_reason"], enabled["disabled_at"]) == (None, None)


def test_what_is_sent_by_hand_needs_an_endpoint_that_is_enabled(acme):
    path, owed = owing(acme)
    acme.http.post(f"{path}/disable")
    since = {"since": "2020-01-01T00:00:00Z"}
    for act, body in (("test", None), ("recover", since), (f"deliveries/{owed[0]['id']}/resend", None)):
        refused(acme.http.post(f"{path}/{act}", json=body), 409, "webhook-endpoint-disabled")


def test_a_test_event_is_accepted_and_its_delivery_can_be_followed(acme):
    made = endpoint(acme, event_types=["training.failed"])
    path = f"/v1/webhook_endpoints/{made['id']}"
    response = acme.http.post(f"{path}/test")
    assert (response.status_code, response.json()["event_type"]) == (202, "webhook_endpoint.test")
    followed = acme.http.get(f"{path}/deliveries/{response.json()['id']}").json()
    assert followed == response.json() | {"attempts": []}


def test_a_delivery_is_resent_and_its_attempts_are_listed(acme):
    path, (owed,) = owing(acme)
    with acme.deployment.owner.begin() as connection:
        connection.exec_driver_sql(
            "UPDATE webhook_deliveries SET state = 'failed', attempt = 1, next_attempt_at = NULL WHERE id = %s",
            (owed["id"],),
        )
        connection.exec_driver_sql(
            "INSERT INTO webhook_attempts (delivery_id, attempt, tenant_id, error, duration_ms)"
            " VALUES (%s, 1, %s, 'The connection failed: x.', 5)",
            (owed["id"], acme.id),
        )
    response = acme.http.post(f"{path}/deliveries/{owed['id']}/resend")
    assert (response.status_code, response.json()["state"]) == (202, "pending")
    (attempt,) = acme.http.get(f"{path}/deliveries/{owed['id']}").json()["attempts"]
    assert (attempt["attempt"], attempt["status"], attempt["error"]) == (1, None, "The connection failed: x.")


def test_a_range_is_recovered(acme):
    acme.generate()
    made = endpoint(acme, event_types=["generation.queued"])
    path = f"/v1/webhook_endpoints/{made['id']}/recover"
    recovered = acme.http.post(path, json={"since": "2020-01-01T00:00:00+09:00"}).json()
    assert recovered == {"object": "webhook_recovery", "resent": 0, "added": 1, "has_more": False}


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({}, "since"),
        ({"since": "2026-01-01T00:00:00"}, "since"),
        ({"since": "2026-01-02T00:00:00Z", "until": "2026-01-01T00:00:00Z"}, "until"),
    ],
)
def test_a_range_that_is_none_is_refused(acme, body, param):
    path = f"/v1/webhook_endpoints/{endpoint(acme)['id']}/recover"
    assert refused(acme.http.post(path, json=body), 422, "validation")["error"]["param"] == param


def test_a_state_that_no_delivery_has_is_refused(acme):
    path, _ = owing(acme)
    refused(acme.http.get(f"{path}/deliveries", params={"state": "lost"}), 422, "validation")


def test_what_is_done_to_an_endpoint_is_written_down_without_its_secret(acme):
    made = endpoint(acme)
    path = f"/v1/webhook_endpoints/{made['id']}"
    acme.http.post(path, json={"name": "mine"})
    rotated = acme.http.post(f"{path}/rotate_secret").json()
    for act in ("disable", "enable"):
        acme.http.post(f"{path}/{act}")
    acme.http.delete(path)
    acme.http.delete(path)
    told = acme.http.get("/v1/audit")
    acts = [(entry["action"], entry["object_id"]) for entry in reversed(told.json()["data"])]
    verbs = ("created", "changed", "secret_rotated", "disabled", "enabled", "deleted")
    assert acts == [(f"webhook_endpoint.{verb}", made["id"]) for verb in verbs]
    assert rotated["signing_secret"] not in told.text
    assert made["signing_secret"] not in told.text


def test_a_tenant_has_so_many_endpoints_and_no_more(acme, rival):
    """Every event is written once for each of them, beside other tenants' jobs."""
    made = [endpoint(acme)["id"] for _ in range(MOST_ENDPOINTS)]
    problem = refused(acme.http.post("/v1/webhook_endpoints", json={"url": URL}), 409, "conflict")
    assert str(MOST_ENDPOINTS) in problem["detail"]
    endpoint(rival)
    assert acme.http.delete(f"/v1/webhook_endpoints/{made[0]}").status_code == 204
    endpoint(acme)
