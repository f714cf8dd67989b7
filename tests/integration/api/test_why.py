from __future__ import annotations

import typing

import pytest
from sqlalchemy import text

from core.jobs import workers
from core.jobs.outlook import Reason
from lockstep import Lockstep
from tests.serving import POOL, Deployment, Tenant, refused


@pytest.fixture
def worker(deployment: Deployment) -> typing.Iterator[None]:
    with deployment.sessions.begin() as session:
        worker_id = workers.register(session, pool=POOL, host="h", pid=1)
        workers.beat(session, worker_id, state="idle", device=None, warm_models=())
    yield
    with deployment.sessions.begin() as session:
        session.execute(text("DELETE FROM workers"))


def test_a_job_says_why_it_waits(acme: Tenant, worker: None):
    first, second = acme.generate(), acme.generate(priority="low")
    told = acme.http.get(f"/v1/jobs/{second['id']}/why").json()
    assert told["object"] == "job.why"
    assert told["reason"] in {Reason.BEHIND_OWN_JOBS, Reason.BEHIND_OTHERS}
    assert told["position"] >= 2
    assert 0 <= told["starts_in"]["p50"] <= told["starts_in"]["p90"]
    acme.deployment.claim(first["id"])
    assert acme.http.get(f"/v1/jobs/{first['id']}/why").json()["reason"] == "running"


def test_the_client_reads_it(acme: Tenant):
    job = acme.generate()
    key = acme.deployment.new_key(acme.id)
    with Lockstep(base_url=acme.base_url, api_key=key) as client:
        why = client.jobs.why(job["id"])
    assert (why.reason, why.starts_in) == ("no_worker", None)
    assert why.detail


def test_a_job_of_nobody_has_no_reason(acme: Tenant):
    refused(acme.http.get("/v1/jobs/job_none/why"), 404, "not-found")


def test_priority_is_said_back_and_one_of_three(acme: Tenant):
    assert acme.generate()["priority"] == "normal"
    job = acme.generate(priority="high")
    assert job["priority"] == "high"
    assert acme.deployment.scalar("SELECT priority FROM jobs WHERE id = :id", id=job["id"]) == 1
    body = {"prompt": "a cat", "priority": "urgent"}
    refused(acme.http.post("/v1/generations", json=body), 422, "validation")


def test_a_job_remembers_the_key_that_submitted_it(acme: Tenant):
    job = acme.train("kim", priority="low")
    key = acme.deployment.scalar("SELECT api_key_id FROM jobs WHERE id = :id", id=job["id"])
    assert key.startswith("key_")
