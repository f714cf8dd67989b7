"""Budgets and quotes, as customers meet them."""

from __future__ import annotations

import asyncio
from collections import Counter

import httpx
import pytest
from sqlalchemy import text

from core.budgets.statements import MISMATCHES
from core.jobs.retry import JobError
from core.jobs.states import JobState
from tests.serving import refused

BODY = {"prompt": "a cat", "steps": 2}
COST = 0.04  # GPU-seconds that such a job is estimated to cost
BROKEN = JobError("engine-lost", "It broke.", retryable=True)


def limit_to(tenant, seconds, **more):
    answer = tenant.http.put("/v1/budgets", json={"limit": seconds, **more})
    assert answer.status_code == 200, answer.text
    return answer.json()


def budget(tenant):
    return tenant.http.get("/v1/budgets").json()["data"][0]


def post(tenant, **body):
    return tenant.http.post("/v1/generations", json=BODY | body)


def quote(tenant, **body):
    answer = tenant.http.post("/v1/quotes", json={"kind": "generation", "request": BODY | body})
    assert answer.status_code == 201, answer.text
    return answer.json()


def mismatches(deployment, tenant):
    with deployment.worker.begin() as connection:
        return [tuple(row) for row in connection.execute(MISMATCHES) if row.tenant_id == tenant.id]


async def at_once(tenant, count, **headers):
    limits = httpx.Limits(max_connections=count)
    async with httpx.AsyncClient(
        base_url=tenant.base_url, headers=tenant.http.headers, timeout=120, limits=limits, verify=False
    ) as client:
        posts = [client.post("/v1/generations", json=BODY, headers=headers) for _ in range(count)]
        return await asyncio.gather(*posts)


def finish_in_every_way(deployment, tenant):
    """Ten are canceled, ten succeed, ten fail; ten times a worker dies, and what it had goes on; the rest waits."""
    for job_id in deployment.column("SELECT id FROM jobs WHERE tenant_id = :id LIMIT 10", id=tenant.id):
        tenant.http.post(f"/v1/jobs/{job_id}/cancel")
    for _ in range(10):
        deployment.succeed(deployment.claim_of(tenant.id))
        deployment.end(deployment.claim_of(tenant.id), JobState.FAILED, BROKEN)
        deployment.lose(deployment.claim_of(tenant.id))


def test_of_200_submissions_at_once_exactly_those_are_accepted_that_the_budget_has_room_for(deployment, acme):
    limit_to(acme, 50 * COST)
    answers = asyncio.run(at_once(acme, 200))
    assert Counter(answer.status_code for answer in answers) == {201: 50, 402: 150}
    assert acme.jobs() == 50
    assert budget(acme)["reserved"] == pytest.approx(50 * COST)
    assert mismatches(deployment, acme) == []
    limit_to(acme, None)
    finish_in_every_way(deployment, acme)
    assert mismatches(deployment, acme) == []
    charged = deployment.scalar("SELECT sum(charged_ms) FROM jobs WHERE tenant_id = :id", id=acme.id)
    assert budget(acme)["spent"] == charged / 1000 == 10 * 1.5
    assert budget(acme)["reserved"] == pytest.approx(20 * COST)


def test_what_does_not_fit_is_refused_with_what_is_left(acme):
    limit_to(acme, 1.5 * COST)
    assert post(acme).status_code == 201
    answer = post(acme)
    problem = refused(answer, 402, "budget-exceeded")
    assert problem["limit"] == {"name": "budget.tenant", "value": 1.5 * COST, "left": 0.5 * COST}
    assert problem["error"]["type"] == "insufficient_quota"
    assert answer.headers["x-should-retry"] == "false"
    assert acme.jobs() == 1


def test_a_budget_counts_what_was_reserved_and_charged_before_it_was_set(deployment, acme):
    first, second = post(acme).json()["id"], post(acme).json()["id"]
    deployment.succeed(deployment.claim(first))
    assert limit_to(acme, 10) == {
        "object": "budget", "api_key_id": None, "limit": 10, "period": "none", "period_start": None, "hard": True,
        "spent": 1.5, "reserved": COST, "left": 10 - 1.5 - COST,
    }  # fmt: skip
    job = acme.http.get(f"/v1/jobs/{second}").json()
    assert (job["reserved_gpu_seconds"], job["charged_gpu_seconds"]) == (COST, 0)
    job = acme.http.get(f"/v1/jobs/{first}").json()
    assert (job["reserved_gpu_seconds"], job["charged_gpu_seconds"]) == (0, 1.5)


def test_a_budget_of_a_month_forgets_what_was_spent_before_it(deployment, acme):
    job_id = post(acme).json()["id"]
    deployment.succeed(deployment.claim(job_id))
    assert limit_to(acme, 1, period="month")["left"] == 0
    refused(post(acme), 402, "budget-exceeded")
    with deployment.owner.begin() as connection:  # as if all that had happened last month
        for table, column in (("ledger_entries", "created_at"), ("budgets", "window_start")):
            month = f"UPDATE {table} SET {column} = {column} - interval '1 month' WHERE tenant_id = :id"
            connection.execute(text(month), {"id": acme.id})
    assert post(acme).status_code == 201
    assert (budget(acme)["spent"], budget(acme)["left"]) == (0, 1 - COST)


def test_a_keys_budget_of_a_month_is_shown_anew_though_the_key_did_nothing_since(deployment, acme):
    key_id = deployment.scalar("SELECT id FROM api_keys WHERE tenant_id = :id", id=acme.id)
    deployment.succeed(deployment.claim(post(acme).json()["id"]))
    assert limit_to(acme, 10, period="month", api_key_id=key_id)["spent"] == 1.5
    with deployment.owner.begin() as connection:  # as if all that had happened last month
        for table, column in (("ledger_entries", "created_at"), ("budgets", "window_start")):
            month = f"UPDATE {table} SET {column} = {column} - interval '1 month' WHERE tenant_id = :id"
            connection.execute(text(month), {"id": acme.id})
    (_, shown) = acme.http.get("/v1/budgets").json()["data"]
    assert (shown["api_key_id"], shown["spent"], shown["left"]) == (key_id, 0, 10)


def test_a_soft_budget_only_warns(acme):
    limit_to(acme, 0, hard=False)
    warnings = post(acme).json()["warnings"]
    assert [warning["code"] for warning in warnings] == ["budget-exceeded"]


def test_a_key_may_have_less_than_its_tenant(deployment, acme):
    key_id = deployment.scalar("SELECT id FROM api_keys WHERE tenant_id = :id", id=acme.id)
    limit_to(acme, COST, api_key_id=key_id)
    assert post(acme).status_code == 201
    assert refused(post(acme), 402, "budget-exceeded")["limit"]["name"] == "budget.api_key"
    with acme.client() as another:
        assert another.post("/v1/generations", json=BODY).status_code == 201
    listed = acme.http.get("/v1/budgets").json()["data"]
    assert [(each["api_key_id"], each["reserved"]) for each in listed] == [(None, 2 * COST), (key_id, COST)]


def test_whoever_changes_a_budget_is_written_down(deployment, acme):
    limit_to(acme, 10)
    limit_to(acme, 2.5, period="month")
    entries = "SELECT jsonb_build_array(actor, object_id, before->'limit_ms', after->'limit_ms', after->'period')"
    found = deployment.column(
        f"{entries} FROM audit_log WHERE tenant_id = :id AND action = 'budget.changed' ORDER BY id", id=acme.id
    )
    key_id = deployment.scalar("SELECT id FROM api_keys WHERE tenant_id = :id", id=acme.id)
    assert found == [[key_id, acme.id, None, 10_000, "none"], [key_id, acme.id, 10_000, 2500, "month"]]


def test_a_budget_is_for_administrators_and_for_keys_of_ones_own(deployment, acme, rival):
    key_id = deployment.scalar("SELECT id FROM api_keys WHERE tenant_id = :id", id=rival.id)
    refused(acme.http.put("/v1/budgets", json={"limit": 1, "api_key_id": key_id}), 404, "not-found")
    with acme.client(frozenset({"read", "generate"})) as member:
        refused(member.get("/v1/budgets"), 403, "forbidden")
        refused(member.put("/v1/budgets", json={"limit": None}), 403, "forbidden")


def test_a_refused_family_leaves_nothing_reserved(deployment, acme):
    limit_to(acme, 1)
    body = {"name": "swift", "prompts": ["a cat"], "pairs": 130}
    refused(acme.http.post("/v1/distillations", json=body), 402, "budget-exceeded")
    assert (acme.jobs(), budget(acme)["reserved"]) == (0, 0)


def test_a_quote_is_what_the_request_reserves_and_the_most_it_is_charged(deployment, acme):
    quoted = quote(acme)
    assert quoted["gpu_seconds"] == COST
    assert (acme.jobs(), budget(acme)["reserved"]) == (0, 0)
    job = post(acme, quote=quoted["id"], priority="high").json()
    assert (job["quote"], job["reserved_gpu_seconds"]) == (quoted["id"], COST)
    deployment.succeed(deployment.claim(job["id"]))
    assert acme.http.get(f"/v1/jobs/{job['id']}").json()["charged_gpu_seconds"] == COST
    assert mismatches(deployment, acme) == []


def test_a_quote_for_a_family_is_shared_out_over_its_jobs(deployment, acme):
    request = {"name": "swift", "prompts": ["a cat"], "pairs": 130, "steps": 10}
    quoted = acme.http.post("/v1/quotes", json={"kind": "distillation", "request": request}).json()
    assert acme.http.post("/v1/distillations", json=request | {"quote": quoted["id"]}).status_code == 201
    reserved = deployment.scalar("SELECT sum(reserved_ms) FROM jobs WHERE tenant_id = :id", id=acme.id)
    assert reserved / 1000 == quoted["gpu_seconds"]
    assert mismatches(deployment, acme) == []


def test_a_quote_is_for_one_request_once_and_not_for_ever(deployment, acme, rival):
    quoted = quote(acme)["id"]
    refused(post(acme, quote=quoted, seed=1), 422, "quote-mismatch")
    refused(post(rival, quote=quoted), 404, "not-found")
    assert post(acme, quote=quoted).status_code == 201
    refused(post(acme, quote=quoted), 409, "quote-used")
    late = quote(acme)["id"]
    with deployment.owner.begin() as connection:
        connection.execute(text("UPDATE quotes SET expires_at = lockstep_now() WHERE id = :id"), {"id": late})
    refused(post(acme, quote=late), 409, "quote-expired")
    assert acme.jobs() == 1


def test_a_quote_of_a_request_that_was_refused_holds_on(acme):
    limit_to(acme, 0)
    quoted = quote(acme)["id"]
    refused(post(acme, quote=quoted), 402, "budget-exceeded")
    limit_to(acme, 1)
    assert post(acme, quote=quoted).status_code == 201


def test_what_would_be_refused_is_not_quoted(acme):
    unknown = {"kind": "generation", "request": {"prompt": "<nobody>"}}
    refused(acme.http.post("/v1/quotes", json=unknown), 422, "unknown-placeholder")
    with acme.client(frozenset({"train"})) as trainer:
        refused(trainer.post("/v1/quotes", json={"kind": "generation", "request": BODY}), 403, "forbidden")


def test_usage_is_told_by_day_kind_model_and_key(deployment, acme):
    for _ in range(2):
        deployment.succeed(deployment.claim(post(acme).json()["id"]))
    acme.trained("tom")
    used = acme.http.get("/v1/usage", params={"group_by": ["kind", "model"]}).json()
    kinds = {row["kind"]: (row["jobs"], row["gpu_seconds"]) for row in used["data"]}
    assert kinds == {"generation": (2, 3.0), "training": (1, 1.5)}
    assert (used["total"]["jobs"], used["total"]["gpu_seconds"]) == (3, 4.5)
    assert all(row["model"].startswith("mdl_") for row in used["data"])
    by_day = acme.http.get("/v1/usage").json()
    assert [row["gpu_seconds"] for row in by_day["data"]] == [4.5]
    assert by_day["data"][0]["day"] == by_day["to"]
    before = {"from": "2020-01-01", "to": "2020-01-31", "group_by": "api_key"}
    assert acme.http.get("/v1/usage", params=before).json()["total"]["jobs"] == 0


@pytest.mark.parametrize("days", [("2020-02-01", "2020-01-01"), ("2020-01-01", "2020-12-31"), ("0001-01-01", None)])
def test_usage_is_bounded(acme, days):
    first, last = days
    refused(acme.http.get("/v1/usage", params={"from": first} | ({"to": last} if last else {})), 422, "validation")
