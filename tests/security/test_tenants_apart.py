"""What belongs to another tenant does not exist, through whichever door one asks for it."""

from __future__ import annotations

import re

import pytest

from tests.serving import refused

DOORS = [
    ("GET", "/v1/files/{file}"),
    ("GET", "/v1/files/{file}/content"),
    ("GET", "/v1/files?after={file}"),
    ("GET", "/v1/files?before={file}"),
    ("POST", "/v1/files/{file}/url"),
    ("GET", "/v1/uploads/{upload}"),
    ("POST", "/v1/uploads/{upload}/complete"),
    ("DELETE", "/v1/uploads/{upload}"),
    ("GET", "/v1/concepts/{concept}"),
    ("GET", "/v1/concepts/tom"),
    ("GET", "/v1/concepts/{concept}/versions"),
    ("GET", "/v1/concepts/{concept}/content"),
    ("GET", "/v1/concepts?after={concept}"),
    ("GET", "/v1/granted_concepts?after={lent}"),
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
    ("GET", "/v1/api_keys/{key}"),
    ("GET", "/v1/api_keys?after={key}"),
    ("GET", "/v1/members?after={member}"),
    ("GET", "/v1/invitations?after={invitation}"),
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


DOOR_BODIES = {
    ("POST", "/v1/webhook_endpoints/{hook}"): {"name": "mine now"},
    ("POST", "/v1/webhook_endpoints/{hook}/recover"): {"since": "2020-01-01T00:00:00Z"},
}


@pytest.mark.parametrize(("method", "path"), DOORS)
def test_a_strangers_id_is_not_found(stranger, belongings, method, path):
    body = {"json": DOOR_BODIES[method, path]} if (method, path) in DOOR_BODIES else {}
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
    "path",
    [
        "files", "concepts", "trainings", "generations", "jobs", "events", "webhook_endpoints", "api_keys", "members",
        "invitations", "granted_concepts",
    ],
)  # fmt: skip
def test_lists_show_ones_own_only(owner, stranger, belongings, path):
    theirs = {item["id"] for item in owner.http.get(f"/v1/{path}").json()["data"]}
    own = {item["id"] for item in stranger.http.get(f"/v1/{path}").json()["data"]}
    assert theirs
    assert not own & theirs
    assert len(own) == (path == "api_keys")  # the one he calls with


BODIES = {
    "GrantConcept": {"tenant": "ten_x"},
    "ChangeMember": {"role": "viewer"},
    "UpdateWebhookEndpoint": {"name": "mine now"},
    "RecoverDeliveries": {"since": "2020-01-01T00:00:00Z"},
}


@pytest.fixture(scope="module")
def document(stranger):
    return stranger.http.get("/openapi.json").json()


@pytest.fixture(scope="module")
def routes(document):
    """Every route that takes an id, with a body that would do."""
    found = []
    for path, operations in document["paths"].items():
        for method, operation in operations.items():
            if "{" in path:
                content = operation.get("requestBody", {}).get("content", {})
                name = content.get("application/json", {}).get("schema", {}).get("$ref", "").rpartition("/")[2]
                found.append((method.upper(), path, BODIES.get(name, {}) if content else None))
    return found


def test_every_route_refuses_every_id_of_somebody_else(stranger, belongings, routes):
    """Found through the document, so that no route is forgotten."""
    opened = []
    for method, path, body in routes:
        for kind, foreign in belongings.items():
            where = re.sub(r"{\w+}", foreign, path)
            status = stranger.http.request(method, where, json=body, headers={"Prefer": "wait=1"}).status_code
            if status not in {403, 404}:
                opened.append((method, path, kind, status))
    assert len(routes) > 40
    assert opened == []


def test_filters_reach_no_further(stranger, belongings):
    assert stranger.http.get("/v1/events", params={"job": belongings["generation"]}).json()["data"] == []


@pytest.mark.parametrize(
    ("body", "status", "code"),
    [
        ({"prompt": "<tom>"}, 422, "unknown-placeholder"),
        ({"prompt": "<tom>", "concepts": [{"name": "tom"}]}, 404, "not-found"),
        ({"prompt": "<x>", "concepts": [{"id": "{concept}", "as": "x"}]}, 404, "not-found"),
        ({"prompt": "<x>", "concepts": [{"name": "{tenant}/tom", "as": "x"}]}, 404, "not-found"),
        ({"prompt": "<x>", "concepts": [{"id": "{lent}", "as": "x"}]}, 404, "not-found"),
    ],
)
def test_a_strangers_concept_cannot_be_drawn(stranger, belongings, body, status, code):
    listed = [{k: v.format(**belongings) for k, v in use.items()} for use in body.get("concepts", [])]
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
