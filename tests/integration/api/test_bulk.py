"""Many jobs canceled or tried again at once, one tried again by hand, and deadlines."""

from __future__ import annotations

from datetime import datetime
from functools import partialmethod

import pytest
from typer.testing import CliRunner

from core.jobs.retry import JobError
from core.jobs.states import JobState
from lockstep import Lockstep
from lockstep.cli import app
from lockstep.jobs import Jobs
from tests.serving import created, refused

BROKEN = JobError("internal-error", "It broke.", retryable=True)


def fail(acme, job_id):
    acme.deployment.end(acme.deployment.claim(job_id), JobState.FAILED, BROKEN)


def bulk(acme, verb, **body):
    response = acme.http.post(f"/v1/jobs/{verb}", json=body)
    assert response.status_code == 200, response.text
    return response.json()


def state(acme, job_id):
    return acme.http.get(f"/v1/jobs/{job_id}").json()["state"]


def test_a_deadline_counts_from_the_acceptance(acme):
    job = acme.generate(headers={"Cancel-After": "1h30m"})
    accepted, deadline = (datetime.fromisoformat(job[name]) for name in ("created_at", "deadline_at"))
    assert (deadline - accepted).total_seconds() == 5400
    assert acme.generate()["deadline_at"] is None


def test_a_deadline_that_cannot_be_read_makes_no_job(acme):
    answer = acme.http.post("/v1/generations", json={"prompt": "a cat"}, headers={"Cancel-After": "soon"})
    assert refused(answer, 422, "validation")["error"]["param"] == "Cancel-After"
    assert acme.jobs() == 0


def test_the_shards_of_a_distillation_have_its_deadline(acme):
    body = {"name": "swift", "prompts": ["a cat"], "pairs": 2}
    job = created(acme.http.post("/v1/distillations", json=body, headers={"Cancel-After": "5m"}))
    of_all = "SELECT count(DISTINCT deadline_at - created_at) FROM jobs WHERE id = :id OR parent_id = :id"
    assert acme.deployment.scalar(of_all, id=job["id"]) == 1


@pytest.mark.parametrize("ended", [JobState.FAILED, JobState.CANCELED])
def test_what_did_not_succeed_is_tried_again_as_a_new_job_that_names_it(acme, ended):
    old = acme.generate(seed=7, priority="high")
    acme.deployment.end(acme.deployment.claim(old["id"]), ended, BROKEN if ended is JobState.FAILED else None)
    new = created(acme.http.post(f"/v1/jobs/{old['id']}/retry"))
    assert (new["retry_of"], new["state"], new["attempt"], new["priority"]) == (old["id"], "queued", 0, "high")
    assert new["params"] == old["params"]
    assert state(acme, old["id"]) == ended
    acme.deployment.succeed(acme.deployment.claim(new["id"]))
    assert state(acme, new["id"]) == "succeeded"


def test_nothing_is_tried_again_twice_nor_before_it_has_ended_nor_after_it_succeeded(acme):
    old = acme.generate()["id"]
    refused(acme.http.post(f"/v1/jobs/{old}/retry"), 409, "not-retryable")
    fail(acme, old)
    new = created(acme.http.post(f"/v1/jobs/{old}/retry"))["id"]
    assert new in refused(acme.http.post(f"/v1/jobs/{old}/retry"), 409, "not-retryable")["detail"]
    acme.deployment.succeed(acme.deployment.claim(new))
    refused(acme.http.post(f"/v1/jobs/{new}/retry"), 409, "not-retryable")


def test_another_tenants_job_cannot_be_tried_again(acme, rival):
    job_id = acme.generate()["id"]
    acme.http.post(f"/v1/jobs/{job_id}/cancel")
    refused(rival.http.post(f"/v1/jobs/{job_id}/retry"), 404, "not-found")


def test_a_distillation_is_tried_again_with_all_its_shards(acme):
    old = acme.distil(pairs=2)
    shard = acme.deployment.scalar("SELECT id FROM jobs WHERE parent_id = :id", id=old["id"])
    acme.http.post(f"/v1/jobs/{old['id']}/cancel")
    refused(acme.http.post(f"/v1/jobs/{shard}/retry"), 409, "not-retryable")
    new = created(acme.http.post(f"/v1/jobs/{old['id']}/retry"))
    assert new["waits_for_children"]
    assert acme.deployment.scalar("SELECT count(*) FROM jobs WHERE parent_id = :id", id=new["id"]) == 1


def test_a_dry_run_says_what_it_would_be_and_changes_nothing(acme):
    ids = [acme.generate()["id"] for _ in range(3)]
    told = bulk(acme, "cancel", dry_run=True, limit=2)
    assert (told["count"], told["ids"], told["has_more"], told["dry_run"]) == (2, ids[:2], True, True)
    assert {state(acme, job_id) for job_id in ids} == {"queued"}


def test_a_filter_cancels_what_fits_it_and_nothing_else(acme, rival):
    running = acme.generate()["id"]
    acme.deployment.claim(running)
    old, training = acme.generate()["id"], acme.train()["id"]
    other = acme.generate(model="other")["id"]
    moment = acme.http.get(f"/v1/jobs/{other}").json()["created_at"]
    foreign = rival.generate()["id"]
    told = bulk(acme, "cancel", kind="generation", model="storybook", state="queued", created_before=moment)
    assert told["ids"] == [old]
    assert [state(acme, job_id) for job_id in (old, training, other, running)] == [
        "canceled", "queued", "queued", "running",
    ]  # fmt: skip
    assert set(bulk(acme, "cancel")["ids"]) == {training, other, running}
    assert acme.http.get(f"/v1/jobs/{running}").json()["cancel_requested"]
    assert state(rival, foreign) == "queued"


def test_a_filter_retries_what_did_not_succeed_once(acme):
    failed, canceled, waiting = (acme.generate()["id"] for _ in range(3))
    fail(acme, failed)
    acme.http.post(f"/v1/jobs/{canceled}/cancel")
    assert bulk(acme, "retry", state="failed", dry_run=True)["ids"] == [failed]
    told = bulk(acme, "retry")
    assert told["count"] == 2
    retried = {acme.http.get(f"/v1/jobs/{job_id}").json()["retry_of"] for job_id in told["ids"]}
    assert retried == {failed, canceled}
    assert bulk(acme, "retry")["count"] == 0
    assert state(acme, waiting) == "queued"


def test_one_that_is_refused_stops_no_other(acme):
    first, second = acme.distil(name="swift", pairs=0)["id"], acme.generate()["id"]
    for job_id in (first, second):
        acme.http.post(f"/v1/jobs/{job_id}/cancel")
    acme.distil(name="swift", pairs=0)  # makes that student now
    told = bulk(acme, "retry")
    assert told["count"] == 1
    assert [(refusal["id"], refusal["code"]) for refusal in told["refused"]] == [(first, "conflict")]


def test_a_key_deals_with_the_kinds_that_it_may_submit(acme):
    training, generation = acme.train()["id"], acme.generate()["id"]
    with acme.client(frozenset({"generate"})) as http:
        refused(http.post("/v1/jobs/cancel", json={"kind": "training"}), 403, "forbidden")
        assert http.post("/v1/jobs/cancel", json={}).json()["ids"] == [generation]
        acme.http.post(f"/v1/jobs/{training}/cancel")
        refused(http.post(f"/v1/jobs/{training}/retry"), 403, "forbidden")


@pytest.mark.parametrize("body", [{"state": "succeeded"}, {"limit": 1001}, {"kind": "nap"}, {"created_after": "soon"}])
def test_a_filter_that_makes_no_sense_is_refused(acme, body):
    refused(acme.http.post("/v1/jobs/cancel", json=body), 422, "validation")


def test_the_client_cancels_and_retries_by_filter_and_by_hand(acme, deployment):
    with Lockstep(base_url=acme.base_url, api_key=deployment.new_key(acme.id)) as client:
        job = client.generations.create(prompt="a cat", cancel_after="5m")
        assert job.deadline_at is not None
        assert (job.deadline_at - job.created_at).total_seconds() == 300
        assert client.jobs.cancel_many(dry_run=True, kind="training").count == 0
        assert client.jobs.cancel_many(created_before=job.deadline_at).ids == (job.id,)
        again = client.jobs.retry(job.id)
        assert again.retry_of == job.id
        client.jobs.cancel(again.id)
        (third,) = client.jobs.retry_many(state="canceled").ids
        assert client.jobs.get(third).retry_of == again.id


def test_the_command_line_goes_on_until_nothing_is_left(acme, deployment, monkeypatch):
    ids = {acme.generate()["id"] for _ in range(3)}
    environment = {"LOCKSTEP_URL": acme.base_url, "LOCKSTEP_API_KEY": deployment.new_key(acme.id)}

    def typed(*arguments):
        answer = CliRunner().invoke(app, ["jobs", *arguments], env=environment)
        assert answer.exit_code == 0, answer.output
        return answer.output.strip()

    monkeypatch.setattr(Jobs, "cancel_many", partialmethod(Jobs.cancel_many, limit=2))
    assert typed("cancel-many", "--dry-run") == "2 or more would be canceled"
    assert typed("cancel-many", "--since", "2020-01-01") == "3 canceled"
    assert {state(acme, job_id) for job_id in ids} == {"canceled"}
    assert typed("retry", min(ids)).startswith("job_")
    assert typed("retry-many", "--state", "canceled") == "2 tried again"
