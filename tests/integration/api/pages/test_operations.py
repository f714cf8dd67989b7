"""The operators' pages as they are served: what they show is what Postgres has, and acts are done and written down."""

from __future__ import annotations

import html
import re
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from sqlalchemy import text

from core.jobs.retry import JobError
from core.jobs.states import JobState
from tests.serving import POOL, Tenant, refused

PAGES = ("", f"/pools/{POOL}", "/workers", "/jobs", "/models", "/audit")


def seen(response: httpx.Response) -> str:
    """The text of a page, its white space folded."""
    assert response.status_code == 200, response.text
    return plain(response.text)


def plain(markup: str) -> str:
    return re.sub(r"\s+", " ", html.unescape(re.sub(r"<[^>]*>", " ", markup)))


def tenants(operator: Tenant) -> list[dict[str, Any]]:
    listed: list[dict[str, Any]] = operator.http.get(f"/v1/admin/pools/{POOL}/tenants?limit=100").json()["data"]
    return listed


def parts(response: httpx.Response) -> Iterator[str]:
    """The texts of the parts that a stream sends."""
    lines: list[str] = []
    for line in response.iter_lines():
        if line.startswith("data:"):
            lines.append(line.removeprefix("data:"))
        elif not line and lines:
            yield plain("\n".join(lines))
            lines = []


@pytest.mark.parametrize("path", PAGES)
def test_every_page_is_for_operators(acme: Tenant, operator: Tenant, path: str):
    refused(acme.http.get(f"/admin{path}"), 403, "forbidden")
    response = operator.http.get(f"/admin{path}")
    assert response.status_code == 200
    assert response.headers["content-type"] == "text/html; charset=utf-8"
    assert "script-src 'self'" in response.headers["content-security-policy"]
    assert re.search(r"<h1[^>]*>\w", response.text)


def test_pages_load_nothing_from_elsewhere_and_run_no_inline_script(operator: Tenant):
    told = operator.http.get("/admin").text
    sources = re.findall(r'(?:src|href)="([^"]*)"', told)
    assert sources
    assert all(source.startswith(("/", "#")) for source in sources)
    assert re.findall(r"<script(?![^>]*\bsrc=)", told) == []
    assert re.findall(r'\son\w+="|\sstyle="', told) == []
    assert {operator.http.get(source).status_code for source in sources if source.startswith("/static/")} == {200}


def test_a_pool_page_tells_its_tenants_and_lanes(acme: Tenant, operator: Tenant):
    running = acme.deployment.claim(acme.generate()["id"])
    acme.generate()
    told = seen(operator.http.get(f"/admin/pools/{POOL}"))
    assert "acme 100" in told
    assert "generation:" in told
    acme.deployment.end(running, JobState.FAILED, JobError("internal-error", "x", retryable=False))


def test_a_job_page_tells_its_whole_life(acme: Tenant, operator: Tenant):
    job = acme.deployment.claim(acme.generate()["id"])
    acme.deployment.end(job, JobState.FAILED, JobError("bad-picture", "It cannot be read.", retryable=False))
    told = seen(operator.http.get(f"/admin/jobs/{job.id}"))
    for part in (
        "bad-picture: It cannot be read.",
        "It has ended.",
        "wrk_1",
        "generation.failed",
        "generation.started",
    ):
        assert part in told
    assert "Cancel" not in told


def test_what_customers_wrote_is_shown_as_text(acme: Tenant, operator: Tenant):
    job = acme.deployment.claim(acme.generate()["id"])
    acme.deployment.end(job, JobState.FAILED, JobError("x", "<script>alert(1)</script>", retryable=False))
    told = operator.http.get(f"/admin/jobs/{job.id}").text
    assert "<script>alert" not in told
    assert "&lt;script&gt;alert" in told


def test_an_unknown_job_is_not_found(operator: Tenant):
    assert operator.http.get("/admin/jobs/job_nobody").status_code == 404
    assert operator.http.get("/admin/pools/nowhere").status_code == 404


def test_acts_are_done_at_once_told_and_written_down(acme: Tenant, operator: Tenant):
    acme.generate()
    path = f"/admin/pools/{POOL}/tenants/{acme.id}"
    response = operator.http.post(path, data={"paused": "true"}, headers={"HX-Request": "true"})
    assert response.headers["HX-Trigger"] == '{"tell": "Holds from the next claim on."}'
    assert "paused" in seen(operator.http.get(f"/admin/pools/{POOL}"))
    assert operator.http.post(path, data={"paused": "false", "weight": "300"}).status_code == 303
    (standing,) = [row for row in tenants(operator) if row["tenant_id"] == acme.id]
    assert (standing["weight"], standing["paused"]) == (300, False)
    assert seen(operator.http.get(f"/admin/audit?tenant={acme.id}")).count("tenant.changed") == 2


def test_acts_are_refused_to_those_who_are_no_operators(acme: Tenant):
    for path, body in (
        (f"/admin/pools/{POOL}", {"paused": "true"}),
        (f"/admin/pools/{POOL}/tenants/{acme.id}", {"weight": "1000"}),
        ("/admin/workers/wrk_1", {"drained": "true"}),
        ("/admin/models/mdl_1", {"paused": "true"}),
    ):
        refused(acme.http.post(path, data=body), 403, "forbidden")


def test_a_job_is_moved_and_canceled_from_its_page(acme: Tenant, operator: Tenant):
    job_id = acme.generate()["id"]
    assert operator.http.post(f"/admin/jobs/{job_id}/priority", data={"priority": "high"}).status_code == 303
    assert operator.http.post(f"/admin/jobs/{job_id}/cancel").status_code == 303
    told = seen(operator.http.get(f"/admin/jobs/{job_id}"))
    assert "priority high" in told
    assert "canceled" in told


def test_a_part_of_a_page_is_sent_when_it_changes(acme: Tenant, operator: Tenant):
    with operator.http.stream("GET", "/admin/live/pools", timeout=20) as response:
        assert response.headers["content-type"] == "text/event-stream"
        told = parts(response)
        queued = int(re.findall(r"queued (\d+)", next(told))[0])
        acme.generate()
        assert int(re.findall(r"queued (\d+)", next(told))[0]) == queued + 1


def test_looking_is_ended_by_the_database_after_two_seconds(operator: Tenant):
    server = operator.deployment
    engine = server.owner
    with engine.begin() as connection:
        connection.execute(text("LOCK TABLE pools IN ACCESS EXCLUSIVE MODE"))
        assert operator.http.get("/admin", timeout=20).status_code == 503
    assert operator.http.get("/admin").status_code == 200


def test_a_priority_that_there_is_not_is_refused(acme: Tenant, operator: Tenant):
    job_id = acme.generate()["id"]
    answer = operator.http.post(f"/admin/jobs/{job_id}/priority", data={"priority": "highest"})
    assert refused(answer, 422, "validation")["error"]["param"] == "priority"
