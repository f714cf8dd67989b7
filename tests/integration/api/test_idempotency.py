"""Requests that are sent twice make one job."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import pytest
from sqlalchemy import text

from tests.serving import refused

BODY = {"prompt": "a cat", "steps": 2}


def post(tenant, body=BODY, **headers):
    names = {"key": "Idempotency-Key", "retry": "x-stainless-retry-count", "prefer": "Prefer"}
    sent = {names[name]: str(value) for name, value in headers.items()}
    return tenant.http.post("/v1/generations", json=body, headers=sent)


@contextmanager
def being_handled(tenant, key):
    """A request under this key stands in the middle of its transaction."""
    with tenant.deployment.owner.begin() as connection:
        name = f"{tenant.id} POST /v1/generations given:{key}"
        connection.execute(text("SELECT pg_advisory_xact_lock(hashtextextended(:name, 0))"), {"name": name})
        yield


def test_a_repeated_key_gives_the_first_answer_and_makes_no_second_job(acme):
    first, second = post(acme, key="k"), post(acme, key="k")
    assert (first.status_code, second.status_code) == (201, 201)
    assert second.json() == first.json()
    assert second.headers["location"] == first.headers["location"] == first.json()["links"]["self"]
    assert second.headers["idempotent-replayed"] == "true"
    assert "idempotent-replayed" not in first.headers
    assert acme.jobs() == 1


def test_a_key_counts_whatever_the_order_and_the_spelling_out_of_the_body(acme):
    post(acme, key="k")
    again = post(acme, {"steps": 2, "n": 1, "prompt": "a cat"}, key="k")
    assert again.headers["idempotent-replayed"] == "true"


def test_a_key_with_another_body_is_refused(acme):
    post(acme, key="k")
    problem = refused(post(acme, {"prompt": "a dog"}, key="k"), 422, "idempotency-key-reused")
    assert problem["error"]["param"] == "Idempotency-Key"
    assert acme.jobs() == 1


def test_a_key_belongs_to_its_tenant_and_its_route(acme, rival):
    ids = {post(acme, key="k").json()["id"], post(rival, key="k").json()["id"]}
    training = {"concept": "tom", "superclass": "cat", "images": [acme.upload()["id"]]}
    ids.add(acme.http.post("/v1/trainings", json=training, headers={"Idempotency-Key": "k"}).json()["id"])
    assert len(ids) == 3


@pytest.mark.parametrize("key", ["", "k" * 256])
def test_a_key_that_is_empty_or_too_long_is_refused(acme, key):
    response = post(acme, key=key)
    assert refused(response, 422, "validation")["error"]["param"] == "Idempotency-Key"
    assert response.headers["x-should-retry"] == "false"
    assert post(acme, key="k" * 255).status_code == 201


def test_an_error_that_stays_is_given_again_and_what_it_left_half_done_is_not_kept(acme):
    body = {"concept": "tom", "superclass": "cat", "images": ["file_gone"]}
    answers = [acme.http.post("/v1/trainings", json=body, headers={"Idempotency-Key": "k"}) for _ in range(2)]
    for answer in answers:
        assert (answer.status_code, answer.json()["code"]) == (404, "not-found")
        assert answer.headers["x-should-retry"] == "false"
    assert answers[1].headers["idempotent-replayed"] == "true"
    assert answers[1].json() == answers[0].json()


def test_an_error_that_may_pass_is_not_kept(acme):
    acme.train()
    refused(post(acme, {"prompt": "<tom>"}, key="k"), 409, "concept-not-ready")
    acme.trained()
    assert post(acme, {"prompt": "<tom>"}, key="k").status_code == 201


def test_a_twin_of_a_request_that_is_being_handled_is_told_to_come_back(acme):
    with being_handled(acme, "k"):
        response = post(acme, key="k")
        refused(response, 409, "idempotency-in-progress")
        assert (response.headers["retry-after"], response.headers["x-should-retry"]) == ("1", "true")
    assert post(acme, key="k").status_code == 201


def test_twenty_twins_at_once_make_one_job(acme):
    with ThreadPoolExecutor(20) as pool:
        answers = list(pool.map(lambda _: post(acme, key="k"), range(20)))
    assert acme.jobs() == 1
    made = [answer for answer in answers if answer.status_code == 201]
    assert len({answer.json()["id"] for answer in made}) == 1
    assert sum("idempotent-replayed" not in answer.headers for answer in made) == 1
    assert {answer.json()["code"] for answer in answers if answer.status_code != 201} <= {"idempotency-in-progress"}


def test_a_key_is_free_again_after_a_day(acme):
    first = post(acme, key="k").json()["id"]
    with acme.deployment.owner.begin() as connection:
        connection.execute(text("UPDATE idempotency_keys SET created_at = created_at - interval '24 hours 1 second'"))
    again = post(acme, key="k")
    assert again.json()["id"] != first
    assert post(acme, key="k").json()["id"] == again.json()["id"]


def test_without_a_key_equal_requests_are_meant(acme):
    assert post(acme).json()["id"] != post(acme, retry=0).json()["id"]
    assert acme.jobs() == 2


def test_a_marked_retry_without_a_key_attaches_to_the_latest_first_try(acme):
    post(acme)
    latest = post(acme)
    for count in (1, 2):
        retry = post(acme, retry=count)
        assert (retry.json()["id"], retry.headers["idempotent-replayed"]) == (latest.json()["id"], "true")
    assert acme.jobs() == 2


def test_a_marked_retry_of_what_never_arrived_makes_the_job(acme):
    made = post(acme, retry=1)
    assert made.status_code == 201
    assert post(acme, retry=2).json()["id"] == made.json()["id"]


def test_a_marked_retry_is_no_retry_of_another_body_or_by_another_key_or_after_a_quarter_of_an_hour(acme):
    post(acme)
    assert "idempotent-replayed" not in post(acme, {"prompt": "a dog"}, retry=1).headers
    with acme.client() as other_key:
        made = other_key.post("/v1/generations", json=BODY, headers={"x-stainless-retry-count": "1"})
        assert "idempotent-replayed" not in made.headers
    with acme.deployment.owner.begin() as connection:
        connection.execute(text("UPDATE idempotency_keys SET created_at = created_at - interval '15 minutes 1 second'"))
    assert "idempotent-replayed" not in post(acme, retry=1).headers


def test_a_repetition_that_waits_gets_the_job_as_it_ended(acme):
    job_id = post(acme, key="k").json()["id"]
    acme.deployment.succeed(acme.deployment.claim(job_id))
    again = post(acme, key="k", prefer="wait=5")
    assert (again.json()["id"], again.json()["state"]) == (job_id, "succeeded")
    assert again.headers["idempotent-replayed"] == "true"
