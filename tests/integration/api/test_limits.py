"""Rate limits and caps, as customers meet them: a server that allows little."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from typing import Any

import httpx
import pytest
from sqlalchemy import text

from core.config import Settings
from core.tenants.statements import RESOLVE_API_KEY
from tests.serving import Deployment, Tenant, picture_bytes, refused

BODY = {"prompt": "a cat", "steps": 2}
JOBS_PER_MINUTE = 30
MOST_JOBS = 3
MOST_BYTES = 500
LITTLE = {
    "requests_per_minute": 600,
    "jobs_per_minute": JOBS_PER_MINUTE,
    "tenant_max_jobs": MOST_JOBS,
    "tenant_max_bytes": MOST_BYTES,
}


@pytest.fixture(scope="module")
def deployment(stack_settings: Settings) -> Iterator[Deployment]:
    made = Deployment(stack_settings.model_copy(update=LITTLE))
    yield made
    made.close()


def post(client: httpx.Client) -> httpx.Response:
    return client.post("/v1/generations", json=BODY)


def use_up(tenant: Tenant) -> httpx.Response:
    """The first refusal."""
    for _ in range(JOBS_PER_MINUTE + 1):
        answer = tenant.http.post("/v1/generations", json={})
        if answer.status_code == 429:
            return answer
    raise AssertionError("nothing was refused")


def test_every_answer_says_how_the_rate_stands_that_it_counts_for(acme: Tenant):
    answer = acme.http.get("/v1/jobs")
    assert answer.headers["RateLimit-Policy"] == '"requests";q=600;w=60'
    assert answer.headers["RateLimit"] == '"requests";r=599;t=1'
    answer = acme.http.post("/v1/generations", json={})
    assert answer.status_code == 422
    assert answer.headers["RateLimit-Policy"] == f'"jobs";q={JOBS_PER_MINUTE};w=60'
    assert answer.headers["RateLimit"] == f'"jobs";r={JOBS_PER_MINUTE - 1};t=2'


def test_whoever_comes_too_often_is_told_when_to_come_again(acme: Tenant):
    answer = use_up(acme)
    problem = refused(answer, 429, "rate-limited")
    assert problem["limit"] == {"name": "rate.jobs", "value": JOBS_PER_MINUTE, "left": 0}
    assert problem["retryable"]
    assert 1 <= int(answer.headers["Retry-After"]) <= 2
    assert answer.headers["x-should-retry"] == "true"
    assert answer.headers["RateLimit"].startswith('"jobs";r=0;')


def test_all_keys_of_a_tenant_share_its_rate_and_others_have_their_own(acme: Tenant, rival: Tenant):
    use_up(acme)
    with acme.client() as another:
        assert post(another).status_code == 429
    assert acme.http.get("/v1/jobs").status_code == 200
    assert post(rival.http).status_code == 201


def test_a_bucket_fills_again_with_time_and_no_further(deployment: Deployment, acme: Tenant):
    use_up(acme)
    with deployment.owner.begin() as connection:
        earlier = "UPDATE rate_buckets SET full_at = full_at - interval '1 hour' WHERE tenant_id = :id"
        connection.execute(text(earlier), {"id": acme.id})
    assert post(acme.http).headers["RateLimit"] == f'"jobs";r={JOBS_PER_MINUTE - 1};t=2'


def test_of_many_requests_at_once_no_more_are_served_than_the_bucket_holds(acme: Tenant):
    async def at_once() -> list[httpx.Response]:
        async with httpx.AsyncClient(
            base_url=acme.base_url, headers=acme.http.headers, timeout=60, verify=False
        ) as client:
            return await asyncio.gather(*(client.post("/v1/generations", json={}) for _ in range(2 * JOBS_PER_MINUTE)))

    served = Counter(answer.status_code for answer in asyncio.run(at_once()))
    assert JOBS_PER_MINUTE <= served[422] <= JOBS_PER_MINUTE + 10  # it fills by one each two seconds
    assert served[422] + served[429] == 2 * JOBS_PER_MINUTE


def test_whoever_finds_a_bucket_just_made_and_already_empty_is_refused(deployment: Deployment, acme: Tenant):
    """The first two requests of a tenant at one moment, of which only one is served."""
    take = text("SELECT taken, full_in > interval '0' FROM take_token(:id, 'new', 1, interval '1 minute')")
    with ThreadPoolExecutor(1) as threads:
        with deployment.owner.begin() as first:
            assert first.execute(take, {"id": acme.id}).all() == [(True, True)]

            def second() -> Any:
                with deployment.owner.begin() as connection:
                    return connection.execute(take, {"id": acme.id}).all()

            waiting = threads.submit(second)
            with pytest.raises(TimeoutError):
                waiting.result(0.3)
        assert waiting.result(10) == [(False, True)]


def test_no_limit_is_looked_up_however_the_statement_was_planned(deployment: Deployment, acme: Tenant):
    with deployment.owner.begin() as connection:
        connection.execute(text("SET LOCAL plan_cache_mode = force_generic_plan"))
        sha256 = connection.execute(text("SELECT key_sha256 FROM api_keys LIMIT 1")).scalar_one()
        asked = {"sha256": sha256, "policy": "jobs", "quota": 0, "period": timedelta(minutes=1)}
        for _ in range(8):  # the driver prepares a statement that comes again
            row = connection.execute(RESOLVE_API_KEY, asked).one()
        assert (row.taken, row.full_in) == (True, None)


def test_trying_jobs_again_counts_as_making_jobs(acme: Tenant):
    use_up(acme)
    for path in ("/v1/jobs/job_x/retry", "/v1/jobs/retry"):
        answer = acme.http.post(path, json={})
        assert refused(answer, 429, "rate-limited")["limit"]["name"] == "rate.jobs"
        assert answer.headers["x-should-retry"] == "true"


def test_a_key_that_does_not_work_uses_up_nothing(acme: Tenant):
    answer = httpx.get(f"{acme.base_url}/v1/jobs", headers={"Authorization": "Bearer lk_live_nothing"}, verify=False)
    assert answer.status_code == 401
    assert "RateLimit" not in answer.headers


def test_no_more_jobs_wait_or_run_than_are_allowed(deployment: Deployment, acme: Tenant):
    jobs = [post(acme.http).json()["id"] for _ in range(MOST_JOBS)]
    answer = post(acme.http)
    assert refused(answer, 429, "queue-full")["limit"] == {"name": "queue.jobs", "value": MOST_JOBS, "left": 0}
    assert (answer.headers["Retry-After"], answer.headers["x-should-retry"]) == ("30", "false")
    assert acme.jobs() == MOST_JOBS
    deployment.succeed(deployment.claim(jobs[0]))
    assert post(acme.http).status_code == 201


def test_uploads_end_where_the_room_ends_and_a_deleted_file_makes_room(deployment: Deployment, acme: Tenant):
    def upload() -> httpx.Response:
        return acme.http.post("/v1/files", files={"file": ("tom.png", picture_bytes())})

    kept = upload()
    while (answer := upload()).status_code == 201:
        kept = answer
    assert refused(answer, 409, "storage-full")["limit"] == {"name": "storage.bytes", "value": MOST_BYTES, "left": 0}
    rows = "SELECT count(*) FROM files WHERE tenant_id = :id"
    files = deployment.scalar(rows, id=acme.id)
    stored = acme.http.get("/v1/limits").json()["stored_bytes"]
    held = deployment.scalar("SELECT sum(size_bytes) FROM files WHERE tenant_id = :id", id=acme.id)
    assert stored == {"limit": MOST_BYTES, "used": held}
    assert acme.http.delete(f"/v1/files/{kept.json()['id']}").status_code == 204
    assert upload().status_code == 201
    assert deployment.scalar(rows, id=acme.id) == files


def test_limits_tell_what_holds_and_what_is_used(acme: Tenant):
    post(acme.http)
    told = acme.http.get("/v1/limits").json()
    assert told["jobs"] == {"limit": MOST_JOBS, "used": 1}
    jobs = {rate["name"]: rate for rate in told["rates"]}["jobs"]
    assert jobs == {"name": "jobs", "limit": JOBS_PER_MINUTE, "window_seconds": 60, "left": JOBS_PER_MINUTE - 1}
    assert told["tenant_max_running"] == 16
    assert (told["budgets"][0]["api_key_id"], told["budgets"][0]["limit"]) == (None, None)
