"""Concepts that one tenant lets another one draw with."""

from __future__ import annotations

import threading
from typing import Any

import pytest
from sqlalchemy import text

from core.jobs.retry import JobError
from core.jobs.states import JobState
from tests.serving import Tenant, created, refused


def grant(owner: Tenant, to: Tenant, concept: str = "tom") -> dict[str, Any]:
    return created(owner.http.post(f"/v1/concepts/{concept}/grants", json={"tenant": to.id}))


def revoke(owner: Tenant, of: Tenant, concept: str = "tom") -> None:
    assert owner.http.delete(f"/v1/concepts/{concept}/grants/{of.id}").status_code == 204


def draw(tenant: Tenant, owner: Tenant, **use: Any) -> Any:
    listed = {"name": f"{owner.id}/tom"} | use
    return tenant.http.post("/v1/generations", json={"prompt": "<tom> on the beach", "concepts": [listed]})


@pytest.fixture
def concept(acme: Tenant) -> str:
    """Id of acme's concept tom."""
    return acme.trained("tom")


def test_who_is_granted_a_concept_sees_it_and_draws_with_it(acme: Tenant, rival: Tenant, concept: str):
    assert rival.http.get("/v1/granted_concepts").json()["data"] == []
    made = grant(acme, rival)
    assert (made["id"], made["concept_id"]) == (rival.id, concept)
    (seen,) = rival.http.get("/v1/granted_concepts").json()["data"]
    assert (seen["id"], seen["owner"], seen["reference"], seen["latest_version"]) == (
        concept,
        acme.id,
        f"{acme.id}/tom",
        1,
    )
    job = created(draw(rival, acme))
    assert job["params"]["concepts"][0]["id"] == concept
    rival.deployment.succeed(rival.deployment.claim(job["id"]))
    assert rival.http.get(f"/v1/jobs/{job['id']}").json()["state"] == "succeeded"


@pytest.mark.parametrize("reference", ["name", "id"])
def test_it_is_called_by_owner_and_name_or_by_id_and_may_have_another_placeholder(
    acme: Tenant, rival: Tenant, concept: str, reference: str
):
    grant(acme, rival)
    called = {"name": f"{acme.id}/tom"} if reference == "name" else {"id": concept}
    body = {"prompt": "<him> asleep", "concepts": [called | {"as": "him"}]}
    created(rival.http.post("/v1/generations", json=body))


def test_a_concept_of_ones_own_of_the_same_name_stays_the_one_that_is_meant(acme: Tenant, rival: Tenant, concept: str):
    grant(acme, rival)
    refused(rival.http.post("/v1/generations", json={"prompt": "<tom>"}), 422, "unknown-placeholder")
    own = rival.trained("tom")
    assert rival.generate("<tom>")["params"]["concepts"][0]["id"] == own
    body = {"prompt": "<tom> and <other>", "concepts": [{"name": f"{acme.id}/tom", "as": "other"}]}
    used = created(rival.http.post("/v1/generations", json=body))["params"]["concepts"]
    assert {use["as"]: use["id"] for use in used} == {"tom": own, "other": concept}


def test_drawing_is_all_that_is_granted(acme: Tenant, rival: Tenant, concept: str):
    grant(acme, rival)
    for path in ("", "/versions", "/content", "/grants"):
        refused(rival.http.get(f"/v1/concepts/{concept}{path}"), 404, "not-found")
    file_id = acme.http.get("/v1/concepts/tom/versions").json()["data"][0]["file_id"]
    refused(rival.http.get(f"/v1/files/{file_id}/content"), 404, "not-found")
    refused(rival.http.delete(f"/v1/concepts/{concept}"), 404, "not-found")
    refused(rival.http.post(f"/v1/concepts/{concept}/grants", json={"tenant": acme.id}), 404, "not-found")
    body = {"concept": concept, "images": [rival.upload()["id"]]}
    refused(rival.http.post("/v1/trainings", json=body), 404, "not-found")
    assert rival.http.get("/v1/concepts").json()["data"] == []


def test_grants_are_listed_and_granting_twice_is_no_error(acme: Tenant, rival: Tenant, concept: str):
    first = grant(acme, rival)
    assert grant(acme, rival) == first
    assert acme.http.get("/v1/concepts/tom/grants").json()["data"] == [first]


@pytest.mark.parametrize(
    ("to", "status", "code"), [("ten_x", 404, "not-found"), ("{own}", 422, "validation")], ids=["nobody", "oneself"]
)
def test_a_grant_to_nobody_or_to_oneself_is_refused(acme: Tenant, concept: str, to: str, status: int, code: str):
    response = acme.http.post("/v1/concepts/tom/grants", json={"tenant": to.format(own=acme.id)})
    refused(response, status, code)


def test_what_is_not_granted_is_not_there(acme: Tenant, rival: Tenant, concept: str):
    refused(draw(rival, acme), 404, "not-found")
    refused(acme.http.delete(f"/v1/concepts/tom/grants/{rival.id}"), 404, "not-found")


def test_a_revocation_cancels_what_is_queued_and_says_why(acme: Tenant, rival: Tenant, concept: str):
    grant(acme, rival)
    stopped, other = created(draw(rival, acme))["id"], rival.generate("a cat")["id"]
    revoke(acme, rival)
    job = rival.http.get(f"/v1/jobs/{stopped}").json()
    assert (job["state"], job["error"]["code"]) == ("canceled", "grant-revoked")
    assert rival.http.get(f"/v1/jobs/{other}").json()["state"] == "queued"
    (event,) = [
        event
        for event in rival.http.get("/v1/events", params={"job": stopped}).json()["data"]
        if event["type"] == "generation.canceled"
    ]
    assert event["data"]["error"]["code"] == "grant-revoked"
    with pytest.raises(AssertionError, match="not runnable"):
        rival.deployment.claim(stopped)


def test_a_revocation_asks_what_runs_to_stop(acme: Tenant, rival: Tenant, concept: str):
    grant(acme, rival)
    job_id = created(draw(rival, acme))["id"]
    claimed = rival.deployment.claim(job_id)
    revoke(acme, rival)
    assert rival.http.get(f"/v1/jobs/{job_id}").json()["cancel_requested"] is True
    rival.deployment.end(claimed, JobState.CANCELED)
    job = rival.http.get(f"/v1/jobs/{job_id}").json()
    assert (job["state"], job["error"]["code"]) == ("canceled", "grant-revoked")


def test_after_a_revocation_nothing_new_is_accepted(acme: Tenant, rival: Tenant, concept: str):
    grant(acme, rival)
    done, failed = (created(draw(rival, acme))["id"] for _ in range(2))
    rival.deployment.succeed(rival.deployment.claim(done))
    error = JobError("engine-lost", "It is gone.", retryable=False)
    rival.deployment.end(rival.deployment.claim(failed), JobState.FAILED, error)
    revoke(acme, rival)
    refused(draw(rival, acme), 404, "not-found")
    refused(draw(rival, acme, name=None, id=concept), 404, "not-found")
    refused(rival.http.post(f"/v1/generations/{done}/reproduce"), 409, "not-reproducible")
    refused(rival.http.post(f"/v1/jobs/{failed}/retry"), 404, "not-found")
    assert rival.http.get("/v1/granted_concepts").json()["data"] == []


def test_a_job_that_is_just_being_accepted_is_found_by_the_revocation(acme: Tenant, rival: Tenant, concept: str):
    """The revocation waits for whoever holds the grant; it does not look before they have committed."""
    grant(acme, rival)
    revoking = threading.Thread(target=revoke, args=(acme, rival))
    with acme.deployment.owner.begin() as accepting:
        accepting.execute(text("SELECT set_config('app.tenant_id', :id, true)"), {"id": rival.id})
        job_id = rival.generate("a cat")["id"]
        use = text("SELECT use_grants(:job, ARRAY[:concept])")
        assert accepting.execute(use, {"job": job_id, "concept": concept}).scalar_one() == concept
        revoking.start()
        revoking.join(0.3)
        assert revoking.is_alive()
    revoking.join(10)
    assert rival.http.get(f"/v1/jobs/{job_id}").json()["state"] == "canceled"


def test_a_deleted_concept_is_granted_to_nobody(acme: Tenant, rival: Tenant, concept: str):
    grant(acme, rival)
    acme.http.delete("/v1/concepts/tom")
    assert rival.http.get("/v1/granted_concepts").json()["data"] == []
    refused(draw(rival, acme), 404, "not-found")


def test_granting_and_revoking_are_written_down(acme: Tenant, rival: Tenant, concept: str):
    grant(acme, rival)
    grant(acme, rival)
    revoke(acme, rival)
    acts = acme.http.get("/v1/audit").json()["data"]
    assert [(act["action"], act["object_id"]) for act in acts] == [
        ("concept.revoked", concept),
        ("concept.granted", concept),
    ]
    assert acts[0]["before"] == {"name": "tom", "tenant": rival.id}


def test_what_was_to_be_drawn_with_a_concept_is_not_tried_again_once_its_owner_has_deleted_it(
    acme: Tenant, rival: Tenant, concept: str
):
    grant(acme, rival)
    failed = created(draw(rival, acme))["id"]
    error = JobError("engine-lost", "It is gone.", retryable=False)
    rival.deployment.end(rival.deployment.claim(failed), JobState.FAILED, error)
    acme.http.delete("/v1/concepts/tom")
    refused(rival.http.post(f"/v1/jobs/{failed}/retry"), 404, "not-found")
