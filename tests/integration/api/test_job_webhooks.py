"""Requests for jobs that name a webhook of their own."""

from __future__ import annotations

import pytest

from core.jobs.retry import JobError
from core.jobs.states import JobState
from tests.serving import created, refused

HOOK = {"url": "https://example.com/jobs/42?for=me", "event_types": ["generation.succeeded"]}


def deliveries(tenant, endpoint_id):
    return tenant.http.get(f"/v1/webhook_endpoints/{endpoint_id}/deliveries").json()["data"]


def endpoints(tenant):
    return tenant.http.get("/v1/webhook_endpoints").json()["data"]


def test_a_job_tells_its_own_webhook_and_says_so(acme):
    job = acme.generate(webhook=HOOK)
    assert job["webhook"] == {**HOOK, "endpoint_id": endpoints(acme)[0]["id"]}
    assert acme.generate()["webhook"] is None
    acme.deployment.succeed(acme.deployment.claim(job["id"]))
    (delivery,) = deliveries(acme, job["webhook"]["endpoint_id"])
    assert delivery["event_type"] == "generation.succeeded"


def test_every_kind_of_job_takes_one(acme):
    hook = {"url": "https://example.com/hook"}
    training = acme.train("rex", webhook=hook)
    student = acme.distil("swift", pairs=10, webhook=hook)
    picture = acme.deployment.succeed(acme.deployment.claim(acme.generate()["id"]))["images"][0]["file_id"]
    again = created(acme.http.post("/v1/generations/reproduce", json={"file": picture, "webhook": hook}))
    for job in (training, student, again):
        assert job["webhook"]["url"] == hook["url"]
        assert job["webhook"]["event_types"] == []
    pairs = acme.http.get("/v1/jobs", params={"parent": student["id"]}).json()["data"]
    assert {job["webhook"] for job in pairs} == {None}
    told = {delivery["event_type"] for delivery in deliveries(acme, training["webhook"]["endpoint_id"])}
    assert told >= {"distillation.queued", "generation.queued", "training.queued"}
    assert "teacher_pairs.queued" not in told


def test_the_hosts_endpoint_says_what_it_is(acme):
    acme.generate(webhook=HOOK)
    (endpoint,) = endpoints(acme)
    assert (endpoint["url"], endpoint["on_request"]) == ("https://example.com/", True)
    assert endpoint["signing_secret_hint"] is None
    refused(acme.http.post(f"/v1/webhook_endpoints/{endpoint['id']}/rotate_secret"), 409, "conflict")


def test_another_try_tells_it_too(acme):
    job = acme.generate(webhook=HOOK)
    acme.deployment.end(acme.deployment.claim(job["id"]), JobState.FAILED, JobError("internal-error", "x", False))
    again = acme.http.post(f"/v1/jobs/{job['id']}/retry")
    assert created(again)["webhook"] == job["webhook"]


def test_a_repeated_request_has_one_webhook_and_another_webhook_is_another_request(acme):
    headers = {"Idempotency-Key": "k"}
    first = acme.generate(webhook=HOOK, headers=headers)
    assert acme.generate(webhook=HOOK, headers=headers) == first
    other = {"prompt": "a cat", "webhook": HOOK | {"url": "https://example.com/other"}}
    response = acme.http.post("/v1/generations", json=other, headers=headers)
    refused(response, 422, "idempotency-key-reused")


def test_a_quote_holds_whoever_is_told(acme):
    quote = created(acme.http.post("/v1/quotes", json={"kind": "generation", "request": {"prompt": "a cat"}}))
    assert acme.generate(webhook=HOOK, quote=quote["id"])["quote"] == quote["id"]


@pytest.mark.parametrize(
    ("hook", "code", "param"),
    [
        ({"url": "http://192.168.0.1/"}, "webhook-target-refused", "webhook.url"),
        ({"url": "https://user:word@example.com/"}, "webhook-target-refused", "webhook.url"),
        ({"url": ""}, "validation", "webhook.url"),
        ({}, "validation", "webhook.url"),
        ({"url": "https://example.com/", "event_types": ["x"]}, "validation", "webhook.event_types"),
        ({"url": "https://example.com/", "secret": "x"}, "validation", "webhook.secret"),
    ],
    ids=["private", "userinfo", "empty", "no-url", "type", "unknown"],
)
def test_a_webhook_that_can_never_be_sent_is_refused(acme, hook, code, param):
    response = acme.http.post("/v1/generations", json={"prompt": "a cat", "webhook": hook})
    assert refused(response, 422, code)["error"]["param"] == param
    assert (acme.jobs(), endpoints(acme)) == (0, [])


def test_the_tenants_secret_is_its_administrators_to_see_and_to_replace(acme, rival):
    secret = acme.http.get("/v1/webhook_secret").json()
    assert secret["signing_secret"].startswith("whsec_")
    assert acme.http.get("/v1/webhook_secret").json() == secret
    assert rival.http.get("/v1/webhook_secret").json()["signing_secret"] != secret["signing_secret"]
    new = acme.http.post("/v1/webhook_secret/rotate").json()
    assert new["signing_secret"] != secret["signing_secret"]
    assert new["previous_secret_expires_at"] is not None
    at_once = {"keep_old_secret_active_for_24_hours": False}
    assert acme.http.post("/v1/webhook_secret/rotate", json=at_once).json()["previous_secret_expires_at"] is None
    told = acme.http.get("/v1/audit")
    assert [entry["action"] for entry in told.json()["data"]] == ["webhook_secret.rotated"] * 2
    assert "whsec_" not in told.text
    with acme.client(frozenset({"read", "generate"})) as client:
        refused(client.get("/v1/webhook_secret"), 403, "forbidden")
        refused(client.post("/v1/webhook_secret/rotate"), 403, "forbidden")
