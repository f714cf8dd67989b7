"""Jobs of every kind: reading, cancelling, waiting."""

from __future__ import annotations

import threading
import time

import pytest

from core.jobs.retry import JobError
from core.jobs.states import JobStage, JobState
from tests.serving import refused


def test_jobs_of_every_kind_are_in_one_list(acme):
    ids = [acme.train()["id"], acme.generate()["id"], acme.generate()["id"]][::-1]

    def listed(**params):
        return [job["id"] for job in acme.http.get("/v1/jobs", params=params).json()["data"]]

    assert listed() == ids
    assert listed(kind="training") == ids[2:]
    assert listed(state="queued", limit=1) == ids[:1]
    assert listed(state="queued", limit=2, after=ids[0]) == ids[1:]
    assert listed(before=ids[1]) == ids[:1]
    assert listed(state="failed") == []
    assert refused(acme.http.get("/v1/jobs?kind=baking"), 422, "validation")["error"]["param"] == "kind"


def test_a_running_job_shows_its_stage_its_progress_and_its_attempts(acme):
    job_id = acme.generate()["id"]
    held = acme.deployment.claim(job_id)
    acme.deployment.report(held, stage=JobStage.WORKING, progress={"step": 3, "steps": 50})
    job = acme.http.get(f"/v1/jobs/{job_id}").json()
    assert (job["state"], job["stage"], job["progress"]) == ("running", "working", {"step": 3, "steps": 50})
    (attempt,) = job["attempts"]
    assert (attempt["attempt"], attempt["worker_id"], attempt["ended_at"]) == (1, "wrk_1", None)
    assert job["started_at"].endswith("Z")
    assert job["params"]["concepts"] == []


def test_a_failed_job_says_why(acme):
    job_id = acme.generate()["id"]
    acme.deployment.end(
        acme.deployment.claim(job_id), JobState.FAILED, JobError("out-of-memory", "The GPU is full.", retryable=True)
    )
    job = acme.http.get(f"/v1/jobs/{job_id}").json()
    assert job["error"] == {"code": "out-of-memory", "message": "The GPU is full.", "retryable": True}
    assert [attempt["outcome"] for attempt in job["attempts"]] == ["failed"]
    refused(acme.http.post(f"/v1/jobs/{job_id}/cancel"), 409, "not-cancelable")


@pytest.mark.parametrize("path", ["/v1/jobs/{}/cancel", "/v1/generations/{}/cancel"])
def test_a_queued_job_is_canceled_at_once_and_stays_so(acme, path):
    job_id = acme.generate()["id"]
    for _ in range(2):
        job = acme.http.post(path.format(job_id)).json()
        assert (job["state"], job["cancel_requested"]) == ("canceled", True)


def test_a_running_job_is_asked_to_stop(acme):
    job_id = acme.generate()["id"]
    held = acme.deployment.claim(job_id)
    job = acme.http.post(f"/v1/jobs/{job_id}/cancel").json()
    assert (job["state"], job["cancel_requested"]) == ("running", True)
    acme.deployment.end(held, JobState.CANCELED)
    assert acme.http.get(f"/v1/jobs/{job_id}").json()["state"] == "canceled"


@pytest.mark.parametrize("job_id", ["job_gone", "%00", "a%00b", "x" * 3000, "../files", "job_1'--"])
def test_a_job_that_nobody_has_is_not_found_however_it_is_written(acme, job_id):
    status = 400 if "%00" in job_id else 404
    refused(acme.http.get(f"/v1/jobs/{job_id}/events"), status, "invalid-request" if status == 400 else "not-found")


def test_an_answer_is_held_until_the_job_has_ended(acme):
    answers = []
    caller = threading.Thread(
        target=lambda: answers.append(
            acme.http.post("/v1/generations", json={"prompt": "a cat"}, headers={"Prefer": "wait=20"})
        )
    )
    caller.start()
    while not (listed := acme.http.get("/v1/generations").json()["data"]):
        time.sleep(0.02)
    acme.deployment.succeed(acme.deployment.claim(listed[0]["id"]))
    caller.join()
    assert (answers[0].status_code, answers[0].headers["preference-applied"]) == (201, "wait=20")
    assert answers[0].json()["state"] == "succeeded"


def test_a_wait_that_is_over_answers_with_the_job_as_it_is(acme):
    job_id = acme.generate()["id"]
    for path in (f"/v1/jobs/{job_id}", f"/v1/generations/{job_id}"):
        response = acme.http.get(path, headers={"Prefer": "respond-async, wait=0"})
        assert (response.json()["state"], response.headers["preference-applied"]) == ("queued", "wait=0")
    assert "preference-applied" not in acme.http.get(f"/v1/jobs/{job_id}").headers


def test_waiting_holds_no_connection_to_the_database(acme):
    """More callers wait than there are connections, and others are still served."""
    job_id = acme.generate()["id"]
    callers = [
        threading.Thread(
            target=lambda: acme.http.get(f"/v1/jobs/{job_id}", headers={"Prefer": "wait=2"}).raise_for_status()
        )
        for _ in range(40)
    ]
    for caller in callers:
        caller.start()
    assert acme.http.get("/v1/jobs").status_code == 200
    for caller in callers:
        caller.join()
