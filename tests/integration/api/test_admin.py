"""What operators see and turn through the API, and what is written down of it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError

from core.jobs import execution, workers
from core.jobs.execution import ClaimedJob, Ending
from core.jobs.recovery import promote
from core.jobs.states import JobState
from tests.serving import LEASE, POOL, Deployment, Tenant, refused


@pytest.fixture
def worker(deployment: Deployment) -> Iterator[str]:
    yield new_worker(deployment)
    with deployment.sessions.begin() as session:
        session.execute(text("DELETE FROM workers"))


def new_worker(deployment: Deployment) -> str:
    with deployment.sessions.begin() as session:
        worker_id = workers.register(session, pool=POOL, host="h", pid=1)
        workers.beat(session, worker_id, state="idle", device="cpu", warm_models=())
    return worker_id


def claim(deployment: Deployment, worker: str, room: int = 1) -> list[ClaimedJob]:
    with deployment.sessions.begin() as session:
        return execution.claim(session, pool=POOL, worker_id=worker, warm=frozenset(), room=room, lease=LEASE)


def change(operator: Tenant, path: str, **body: Any) -> None:
    response = operator.http.patch(f"/v1/admin{path}", json=body)
    assert response.status_code in {200, 204}, response.text


def acts(operator: Tenant, **filters: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = operator.http.get("/v1/admin/audit", params=filters).json()["data"]
    return found


def test_only_operators_with_the_right_scope_come_in(acme: Tenant, operator: Tenant):
    refused(acme.http.get("/v1/admin/pools"), 403, "forbidden")
    with operator.client(frozenset({"read", "generate"})) as reader:
        refused(reader.get("/v1/admin/pools"), 403, "forbidden")
    assert operator.http.get("/v1/admin/pools").status_code == 200


def test_a_pool_says_what_waits_runs_and_went_wrong(acme: Tenant, operator: Tenant, worker: str):
    running, _ = acme.generate(), acme.generate(priority="high")
    done = acme.deployment.claim(running["id"])
    acme.deployment.succeed(done)
    acme.generate()
    (pool,) = operator.http.get("/v1/admin/pools").json()["data"]
    assert (pool["name"], pool["paused"], pool["workers"]) == (POOL, False, 1)
    assert pool["queued"] >= 1
    assert pool["oldest_wait"] >= 0
    assert {"normal"} <= {recent["priority"] for recent in pool["recent"]}


def test_a_tenants_weight_cap_and_pause_are_turned_and_written_down(acme: Tenant, operator: Tenant):
    acme.generate()
    where = f"/pools/{POOL}/tenants"
    change(operator, f"{where}/{acme.id}", weight=300, max_running=2, paused=True)
    rows = operator.http.get(f"/v1/admin{where}", params={"limit": 100}).json()["data"]
    (row,) = [row for row in rows if row["tenant_id"] == acme.id]
    assert (row["weight"], row["max_running"], row["paused"], row["queued"]) == (300, 2, True, 1)
    (act,) = acts(operator, tenant=acme.id)
    assert act["action"] == "tenant.changed"
    assert act["before"] == {"weight": 100, "max_running": 16, "paused": False}
    assert act["after"] == {"weight": 300, "max_running": 2, "paused": True}
    assert act["actor"].startswith("key_")
    assert act["request_id"].startswith("req_")


def test_a_paused_pool_and_a_paused_model_start_nothing(acme: Tenant, operator: Tenant):
    job = acme.generate()
    model_id = acme.deployment.scalar("SELECT model_id FROM jobs WHERE id = :id", id=job["id"])
    for path in (f"/pools/{POOL}", f"/models/{model_id}"):
        change(operator, path, paused=True)
        with pytest.raises(AssertionError, match="not runnable"):
            acme.deployment.claim(job["id"])
        change(operator, path, paused=False)
    assert acme.deployment.claim(job["id"]).id == job["id"]


def test_a_drained_worker_claims_nothing_until_it_is_taken_back(acme: Tenant, operator: Tenant, worker: str):
    job = acme.generate()
    change(operator, f"/workers/{worker}", drained=True, reason="a fan is broken")
    (shown,) = operator.http.get("/v1/admin/workers", params={"pool": POOL}).json()["data"]
    assert (shown["drained"], shown["drain_reason"]) == (True, "a fan is broken")
    with acme.deployment.sessions.begin() as session:
        session.execute(text("UPDATE workers SET id = 'wrk_1'"))  # who claims in these tests
    with pytest.raises(AssertionError, match="not runnable"):
        acme.deployment.claim(job["id"])
    change(operator, "/workers/wrk_1", drained=False)
    assert acme.deployment.claim(job["id"]).id == job["id"]


def test_a_job_is_moved_and_canceled_whosever_it_is(acme: Tenant, operator: Tenant):
    job = acme.generate()
    change(operator, f"/jobs/{job['id']}", priority="high")
    assert acme.http.get(f"/v1/jobs/{job['id']}").json()["priority"] == "high"
    assert operator.http.post(f"/v1/admin/jobs/{job['id']}/cancel").status_code == 204
    assert acme.http.get(f"/v1/jobs/{job['id']}").json()["state"] == "canceled"
    refused(operator.http.post(f"/v1/admin/jobs/{job['id']}/cancel"), 409, "not-cancelable")
    refused(operator.http.patch(f"/v1/admin/jobs/{job['id']}", json={"priority": "low"}), 409, "not-movable")
    assert [act["action"] for act in acts(operator, tenant=acme.id)] == ["job.canceled", "job.moved"]


def test_a_worker_that_is_quarantined_loses_what_it_holds_and_gets_nothing_more(
    acme: Tenant, operator: Tenant, worker: str
):
    deployment = acme.deployment
    with deployment.owner.begin() as connection:  # nothing else waits
        connection.execute(text("DELETE FROM ready"))
    held, waiting = acme.generate()["id"], acme.generate()["id"]
    (job,) = claim(deployment, worker)
    assert job.id == held
    change(operator, f"/workers/{worker}", drained=True, quarantined=True, reason="green pictures")
    assert acme.http.get(f"/v1/jobs/{held}").json()["state"] == "queued"
    assert deployment.column("SELECT outcome FROM job_attempts WHERE job_id = :id", id=held) == ["returned"]
    with deployment.sessions.begin() as session:
        promote(session)
        ending = Ending(job.id, job.token, JobState.SUCCEEDED, 1.0, result={})
        assert execution.finish(session, [ending]) == set()
    assert claim(deployment, worker) == []
    assert {job.id for job in claim(deployment, new_worker(deployment), room=8)} >= {held, waiting}
    (act,) = [act for act in acts(operator) if act["object_id"] == worker]
    assert act["after"] == {"drained": True, "quarantined": True, "reason": "green pictures", "taken_back": [held]}
    (told,) = [row for row in operator.http.get("/v1/admin/workers").json()["data"] if row["id"] == worker]
    assert (told["drained"], told["quarantined"]) == (True, True)
    change(operator, f"/workers/{worker}", drained=False)
    assert deployment.scalar(
        "SELECT quarantined_at IS NULL AND drained_at IS NULL FROM workers WHERE id = :i", i=worker
    )


def test_what_is_not_drained_is_not_quarantined(operator: Tenant):
    body = {"drained": False, "quarantined": True}
    refused(operator.http.patch("/v1/admin/workers/wrk_x", json=body), 422, "validation")


def test_a_keys_cap_is_set_and_lifted(acme: Tenant, operator: Tenant):
    key = acme.deployment.scalar("SELECT id FROM api_keys WHERE tenant_id = :id", id=acme.id)
    change(operator, f"/api_keys/{key}", max_running=0)
    why = acme.http.get(f"/v1/jobs/{acme.generate()['id']}/why").json()
    assert why["reason"] == "key_cap"
    change(operator, f"/api_keys/{key}", max_running=None)
    assert acts(operator, tenant=acme.id)[0]["before"] == {"max_running": 0}


def test_jobs_of_all_tenants_are_listed_newest_first(acme: Tenant, rival: Tenant, operator: Tenant):
    ids = [acme.generate()["id"], rival.generate()["id"]]
    listed = operator.http.get("/v1/admin/jobs", params={"limit": 2, "state": "queued"}).json()
    assert [job["id"] for job in listed["data"]] == ids[::-1]
    only = operator.http.get("/v1/admin/jobs", params={"tenant": acme.id}).json()["data"]
    assert [job["id"] for job in only] == ids[:1]


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/pools/nowhere", {"paused": True}),
        (f"/pools/{POOL}/tenants/ten_x", {"weight": 1}),
        ("/models/mdl_x", {"paused": True}),
        ("/api_keys/key_x", {"max_running": 1}),
        ("/workers/wrk_x", {"drained": True}),
        ("/jobs/job_x", {"priority": "low"}),
    ],
)
def test_what_is_not_there_is_said_and_nothing_is_written_down(operator: Tenant, path: str, body: dict[str, Any]):
    before = len(acts(operator))
    refused(operator.http.patch(f"/v1/admin{path}", json=body), 404, "not-found")
    assert len(acts(operator)) == before


def test_a_change_of_nothing_is_an_error(operator: Tenant):
    refused(operator.http.patch(f"/v1/admin/pools/{POOL}/tenants/ten_x", json={}), 422, "validation")


def test_what_was_written_down_is_changed_by_nobody(deployment: Deployment, operator: Tenant, acme: Tenant):
    acme.generate()
    change(operator, f"/pools/{POOL}/tenants/{acme.id}", weight=50)
    for statement in ("UPDATE audit_log SET actor = 'me'", "DELETE FROM audit_log"):
        with pytest.raises(DBAPIError, match="only ever added to"), deployment.owner.begin() as connection:
            connection.execute(text(statement))


def test_no_read_of_operators_may_take_long(deployment: Deployment, operator: Tenant):
    with deployment.owner.begin() as connection:
        connection.execute(text("SELECT pg_sleep(0)"))
        connection.execute(text("LOCK TABLE pools IN ACCESS EXCLUSIVE MODE"))
        response = operator.http.get("/v1/admin/pools")
    assert response.status_code == 503
