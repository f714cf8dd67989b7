"""What clients are told when something the API stands on fails, and what is left behind: nothing."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import httpx
import pytest
from sqlalchemy import text

from tests.serving import Tenant, created, picture_bytes, refused, serving
from tests.waiting import until

NOWHERE = "127.0.0.1:1"
RAISE = "RAISE EXCEPTION 'secret detail'"
BREAK = "PERFORM pg_terminate_backend(pg_backend_pid())"


@contextmanager
def at_commit(deployment, table, action):
    """Something happens when a transaction that wrote to the table commits."""
    with deployment.owner.begin() as connection:
        connection.execute(
            text(
                f"CREATE FUNCTION trouble() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN {action}; RETURN NULL; END $$;"
                f"CREATE CONSTRAINT TRIGGER trouble AFTER INSERT ON {table} DEFERRABLE INITIALLY DEFERRED"
                " FOR EACH ROW EXECUTE FUNCTION trouble()"
            )
        )
    yield
    with deployment.owner.begin() as connection:
        connection.execute(text(f"DROP TRIGGER trouble ON {table}; DROP FUNCTION trouble()"))


@contextmanager
def gone(servers):
    """The API cannot reach the database: its connections are broken, and it gets no new ones."""
    with servers.postgres.superuser() as superuser:
        superuser.execute("ALTER ROLE lockstep_api NOLOGIN")
        superuser.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'lockstep_api'")
        yield
        superuser.execute("ALTER ROLE lockstep_api LOGIN")


def objects_of(tenant):
    settings, client = tenant.deployment.settings, tenant.deployment.store._client
    return client.list_objects_v2(Bucket=settings.s3_bucket, Prefix=f"tenants/{tenant.id}/")["KeyCount"]


@pytest.fixture
def without(deployment):
    """A tenant of a server for which some setting leads nowhere."""

    @contextmanager
    def serve(**changes):
        with serving(deployment.settings.model_copy(update=changes)) as base_url:
            tenant = Tenant(deployment, base_url, "unlucky")
            with tenant.http:
                yield tenant

    return serve


@pytest.mark.parametrize("path", ["/v1/concepts", "/v1/generations"])
def test_a_client_is_told_of_success_only_after_the_commit(acme, path):
    table = path.removeprefix("/v1/").replace("generations", "jobs")
    body = {"prompt": "a cat"} if table == "jobs" else {"name": "tom", "superclass": "cat"}
    with at_commit(acme.deployment, table, RAISE):
        response = acme.http.post(path, json=body)
    problem = refused(response, 500, "internal")
    assert "secret" not in response.text
    assert problem["retryable"] is False
    assert acme.http.post(path, json=body).status_code == 201


def test_a_job_that_may_exist_is_not_to_be_asked_for_again(acme):
    with at_commit(acme.deployment, "jobs", BREAK):
        response = acme.http.post("/v1/generations", json={"prompt": "a cat"})
    refused(response, 503, "unavailable")
    assert response.headers["x-should-retry"] == "false"


def test_an_upload_that_cannot_be_recorded_leaves_no_object(acme):
    with at_commit(acme.deployment, "files", RAISE):
        response = acme.http.post("/v1/files", files={"file": ("tom.png", picture_bytes())})
    refused(response, 500, "internal")
    assert objects_of(acme) == 0


def test_an_upload_that_may_be_recorded_keeps_its_object(acme):
    with at_commit(acme.deployment, "files", BREAK):
        response = acme.http.post("/v1/files", files={"file": ("tom.png", picture_bytes())})
    refused(response, 503, "unavailable")
    assert objects_of(acme) == 1


def test_without_the_database_requests_may_be_repeated_later(deployment, without):
    with without() as tenant:
        authorization = tenant.http.headers["Authorization"]
    with serving(
        deployment.settings.model_copy(update={"api_database_url": f"postgresql://nobody@{NOWHERE}/x"})
    ) as url:
        headers = {"Authorization": authorization}
        response = httpx.post(f"{url}/v1/generations", json={"prompt": "a"}, headers=headers, verify=False)
        assert refused(response, 503, "unavailable")["retryable"] is True
        assert (response.headers["retry-after"], response.headers["x-should-retry"]) == ("2", "true")
        assert httpx.get(f"{url}/healthz", verify=False).status_code == 200
        ready = httpx.get(f"{url}/readyz", verify=False)
        assert (ready.status_code, ready.json()["database"], ready.json()["object_store"]) == (503, False, True)


def test_a_database_that_goes_away_while_an_answer_is_held_changes_nothing_about_the_job(acme, servers):
    with ThreadPoolExecutor(1) as pool:
        body, headers = {"prompt": "a cat"}, {"Prefer": "wait=20", "Idempotency-Key": "k"}
        answer = pool.submit(acme.http.post, "/v1/generations", json=body, headers=headers)
        until(lambda: acme.jobs() == 1)
        with gone(servers):
            created(answer.result())
            refused(acme.http.get("/v1/jobs"), 503, "unavailable")
    assert [job["id"] for job in acme.http.get("/v1/jobs").json()["data"]] == [answer.result().json()["id"]]


def test_a_database_without_its_tables_is_not_ready(deployment, servers):
    servers.postgres.create_database("empty")
    empty = servers.postgres.url(database="empty").render_as_string()
    with serving(deployment.settings.model_copy(update={"api_database_url": empty})) as url:
        assert httpx.get(f"{url}/readyz", verify=False).status_code == 503


def test_without_the_object_store_nothing_is_accepted_that_needs_it_and_nothing_is_kept(without):
    with without(s3_endpoint=f"http://{NOWHERE}") as tenant:
        response = tenant.http.post("/v1/files", files={"file": ("tom.png", picture_bytes())})
        assert refused(response, 503, "storage-unavailable")["retryable"] is True
        assert response.headers["retry-after"] == "5"
        assert tenant.http.get("/v1/files").json()["data"] == []
        assert tenant.http.get("/readyz").json() == {"ready": False, "database": True, "object_store": False}
        assert tenant.generate("a cat")["state"] == "queued"


def test_a_file_that_could_not_be_deleted_is_still_there_and_can_be_deleted_later(acme, without):
    file = acme.upload()
    with without(s3_endpoint=f"http://{NOWHERE}") as tenant:
        headers = {"Authorization": acme.http.headers["Authorization"]}
        refused(tenant.http.get(f"/v1/files/{file['id']}/content", headers=headers), 503, "storage-unavailable")
        refused(tenant.http.delete(f"/v1/files/{file['id']}", headers=headers), 503, "storage-unavailable")
    assert acme.http.get(file["content_url"]).status_code == 200
    assert acme.http.delete(f"/v1/files/{file['id']}").status_code == 204


def test_without_the_broker_jobs_are_accepted(without):
    with without(broker_url=f"redis://{NOWHERE}/0") as tenant:
        assert tenant.http.get("/readyz").json()["ready"] is True
        assert tenant.generate("a cat")["state"] == "queued"
