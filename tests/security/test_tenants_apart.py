"""What belongs to another tenant does not exist, through whichever door one asks for it."""

from __future__ import annotations

import pytest

from tests.serving import refused

DOORS = [
    ("GET", "/v1/files/{file}"),
    ("GET", "/v1/files/{file}/content"),
    ("GET", "/v1/files?after={file}"),
    ("GET", "/v1/files?before={file}"),
    ("GET", "/v1/concepts/{concept}"),
    ("GET", "/v1/concepts/tom"),
    ("GET", "/v1/concepts/{concept}/versions"),
    ("GET", "/v1/concepts/{concept}/content"),
    ("GET", "/v1/concepts?after={concept}"),
    ("GET", "/v1/trainings/{training}"),
    ("GET", "/v1/generations/{generation}"),
    ("GET", "/v1/jobs/{generation}"),
    ("GET", "/v1/jobs/{generation}/events"),
    ("GET", "/v1/jobs?before={training}"),
    ("GET", "/v1/events?after={event}"),
    ("GET", "/v1/webhook_endpoints/{hook}"),
    ("GET", "/v1/webhook_endpoints/{hook}/deliveries"),
    ("GET", "/v1/webhook_endpoints/{hook}/deliveries/{delivery}"),
    ("GET", "/v1/webhook_endpoints?after={hook}"),
    ("POST", "/v1/jobs/{queued}/cancel"),
    ("POST", "/v1/generations/{queued}/cancel"),
    ("POST", "/v1/generations/{generation}/reproduce"),
    ("POST", "/v1/webhook_endpoints/{hook}"),
    ("POST", "/v1/webhook_endpoints/{hook}/rotate_secret"),
    ("POST", "/v1/webhook_endpoints/{hook}/disable"),
    ("POST", "/v1/webhook_endpoints/{hook}/enable"),
    ("POST", "/v1/webhook_endpoints/{hook}/test"),
    ("POST", "/v1/webhook_endpoints/{hook}/recover"),
    ("POST", "/v1/webhook_endpoints/{hook}/deliveries/{delivery}/resend"),
    ("DELETE", "/v1/webhook_endpoints/{hook}"),
    ("DELETE", "/v1/concepts/{concept}"),
    ("DELETE", "/v1/files/{file}"),
]


BODIES = {
    ("POST", "/v1/webhook_endpoints/{hook}"): {"name": "mine now"},
    ("POST", "/v1/webhook_endpoints/{hook}/recover"): {"since": "2020-01-01T00:00:00Z"},
}


@pytest.mark.parametrize(("method", "path"), DOORS)
def test_a_strangers_id_is_not_found(stranger, belongings, method, path):
    body = {"json": BODIES[method, path]} if (method, path) in BODIES else {}
    response = stranger.http.request(method, path.format(**belongings), headers={"Prefer": "wait=1"}, **body)
    refused(response, 404, "not-found")


@pytest.mark.parametrize(("method", "path"), [door for door in DOORS if door[0] == "GET"])
def test_the_same_id_is_there_for_its_owner_after_all_that(owner, belongings, method, path):
    if path.endswith("/events"):
        path = path.replace("{generation}", "{training}")  # it has ended, so its stream ends
    assert owner.http.request(method, path.format(**belongings)).status_code == 200


def test_what_was_attempted_changed_nothing(owner, belongings):
    assert owner.http.get(f"/v1/jobs/{belongings['queued']}").json()["cancel_requested"] is False
    hook = owner.http.get(f"/v1/webhook_endpoints/{belongings['hook']}").json()
    assert (hook["name"], hook["disabled_at"], hook["previous_secret_expires_at"]) == ("", None, None)


def test_a_strangers_delivery_is_not_found_under_ones_own_endpoint(stranger, belongings):
    own = stranger.http.post("/v1/webhook_endpoints", json={"url": "https://hooks.example.com/"}).json()["id"]
    path = f"/v1/webhook_endpoints/{own}/deliveries/{belongings['delivery']}"
    refused(stranger.http.get(path), 404, "not-found")
    refused(stranger.http.post(f"{path}/resend"), 404, "not-found")
    stranger.http.delete(f"/v1/webhook_endpoints/{own}")


@pytest.mark.parametrize(
    "path", ["files", "concepts", "trainings", "generations", "jobs", "events", "webhook_endpoints"]
)
def test_lists_show_ones_own_only(owner, stranger, belongings, path):
    assert owner.http.get(f"/v1/{path}").json()["data"] != []
    assert stranger.http.get(f"/v1/{path}").json()["data"] == []


def test_filters_reach_no_further(stranger, belongings):
    assert stranger.http.get("/v1/events", params={"job": belongings["generation"]}).json()["data"] == []


@pytest.mark.parametrize(
    ("body", "status", "code"),
    [
        ({"prompt": "<tom>"}, 422, "unknown-placeholder"),
        ({"prompt": "<tom>", "concepts": [{"name": "tom"}]}, 404, "not-found"),
        ({"prompt": "<x>", "concepts": [{"id": "{concept}", "as": "x"}]}, 404, "not-found"),
    ],
)
def test_a_strangers_concept_cannot_be_drawn(stranger, belongings, body, status, code):
    listed = [{**use, **({"id": belongings["concept"]} if "id" in use else {})} for use in body.get("concepts", [])]
    refused(stranger.http.post("/v1/generations", json={**body, "concepts": listed}), status, code)


def test_a_strangers_pictures_cannot_be_learned_from(stranger, belongings):
    body = {"concept": "tom", "superclass": "cat", "images": [belongings["file"]]}
    assert refused(stranger.http.post("/v1/trainings", json=body), 404, "not-found")["error"]["param"] == "images.0"
    body = {"concept": belongings["concept"], "images": [stranger.upload()["id"]]}
    assert refused(stranger.http.post("/v1/trainings", json=body), 404, "not-found")["error"]["param"] == "concept"


def test_a_name_that_is_taken_elsewhere_is_free(stranger, belongings):
    made = stranger.http.post("/v1/concepts", json={"name": "tom", "superclass": "dog"})
    assert made.status_code == 201
    stranger.http.delete("/v1/concepts/tom")


def test_an_idempotency_key_gives_nobody_elses_answer(stranger, belongings):
    made = stranger.http.post("/v1/generations", json={"prompt": "a cat"}, headers={"Idempotency-Key": "k"})
    assert made.status_code == 201
    assert "idempotent-replayed" not in made.headers
