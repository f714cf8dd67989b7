"""What is the same for every request: keys and scopes, ids of requests, errors, health, the OpenAPI document."""

from __future__ import annotations

from typing import Any

import httpx
import pytest

from core.tenants import keys
from tests.serving import Tenant, refused

MALFORMED = keys.new_key()[:-1] + "!"
SCOPES_OF = [
    ("POST", "/v1/generations", "generate"),
    ("POST", "/v1/generations/sweep", "generate"),
    ("POST", "/v1/generations/reproduce", "generate"),
    ("POST", "/v1/generations/job_x/reproduce", "generate"),
    ("POST", "/v1/generations/job_x/cancel", "generate"),
    ("POST", "/v1/trainings", "train"),
    ("POST", "/v1/trainings/job_x/cancel", "train"),
    ("POST", "/v1/trainings/job_x/pause", "train"),
    ("POST", "/v1/trainings/job_x/resume", "train"),
    ("POST", "/v1/distillations", "distill"),
    ("POST", "/v1/distillations/job_x/cancel", "distill"),
    ("POST", "/v1/distillations/job_x/pause", "distill"),
    ("POST", "/v1/distillations/job_x/resume", "distill"),
    ("POST", "/v1/files", "train"),
    ("DELETE", "/v1/files/file_x", "train"),
    ("POST", "/v1/files/file_x/url", "read"),
    ("POST", "/v1/uploads", "train"),
    ("GET", "/v1/uploads/upl_x", "train"),
    ("POST", "/v1/uploads/upl_x/complete", "train"),
    ("DELETE", "/v1/uploads/upl_x", "train"),
    ("POST", "/v1/concepts", "train"),
    ("POST", "/v1/concepts/import", "train"),
    ("DELETE", "/v1/concepts/tom", "train"),
    ("GET", "/v1/webhook_secret", "admin"),
    ("POST", "/v1/webhook_secret/rotate", "admin"),
    ("POST", "/v1/webhook_endpoints", "admin"),
    ("POST", "/v1/webhook_endpoints/we_x", "admin"),
    ("DELETE", "/v1/webhook_endpoints/we_x", "admin"),
    ("POST", "/v1/api_keys", "admin"),
    ("GET", "/v1/api_keys", "admin"),
    ("GET", "/v1/api_keys/key_x", "admin"),
    ("POST", "/v1/api_keys/key_x/rotate", "admin"),
    ("DELETE", "/v1/api_keys/key_x", "admin"),
    ("GET", "/v1/audit", "admin"),
    ("GET", "/v1/members", "admin"),
    ("PATCH", "/v1/members/usr_x", "admin"),
    ("DELETE", "/v1/members/usr_x", "admin"),
    ("POST", "/v1/invitations", "admin"),
    ("GET", "/v1/invitations", "admin"),
    ("DELETE", "/v1/invitations/inv_x", "admin"),
    ("GET", "/v1/budgets", "admin"),
    ("PUT", "/v1/budgets", "admin"),
    ("GET", "/v1/usage", "read"),
    ("GET", "/v1/limits", "read"),
    ("POST", "/v1/webhook_endpoints/we_x/rotate_secret", "admin"),
    ("POST", "/v1/webhook_endpoints/we_x/disable", "admin"),
    ("POST", "/v1/webhook_endpoints/we_x/enable", "admin"),
    ("POST", "/v1/webhook_endpoints/we_x/test", "admin"),
    ("POST", "/v1/webhook_endpoints/we_x/recover", "admin"),
    ("POST", "/v1/webhook_endpoints/we_x/deliveries/dlv_x/resend", "admin"),
    ("GET", "/v1/files", "read"),
    ("GET", "/v1/files/file_x", "read"),
    ("GET", "/v1/files/file_x/content", "read"),
    ("GET", "/v1/concepts", "read"),
    ("GET", "/v1/concepts/tom", "read"),
    ("GET", "/v1/concepts/tom/versions", "read"),
    ("GET", "/v1/concepts/tom/content", "read"),
    ("POST", "/v1/concepts/tom/grants", "admin"),
    ("GET", "/v1/concepts/tom/grants", "read"),
    ("DELETE", "/v1/concepts/tom/grants/ten_x", "admin"),
    ("GET", "/v1/granted_concepts", "read"),
    ("GET", "/v1/models", "read"),
    ("GET", "/v1/models/storybook", "read"),
    ("GET", "/v1/trainings", "read"),
    ("GET", "/v1/trainings/job_x", "read"),
    ("GET", "/v1/distillations", "read"),
    ("GET", "/v1/distillations/job_x", "read"),
    ("GET", "/v1/generations", "read"),
    ("GET", "/v1/generations/job_x", "read"),
    ("GET", "/v1/jobs", "read"),
    ("GET", "/v1/jobs/job_x", "read"),
    ("GET", "/v1/jobs/job_x/events", "read"),
    ("GET", "/v1/jobs/job_x/why", "read"),
    ("GET", "/v1/events", "read"),
    ("GET", "/v1/webhook_endpoints", "read"),
    ("GET", "/v1/webhook_endpoints/we_x", "read"),
    ("GET", "/v1/webhook_endpoints/we_x/deliveries", "read"),
    ("GET", "/v1/webhook_endpoints/we_x/deliveries/dlv_x", "read"),
]
OF_OPERATORS = [
    ("GET", "/metrics"),
    ("GET", "/v1/admin/pools"),
    ("PATCH", "/v1/admin/pools/{pool}"),
    ("GET", "/v1/admin/pools/{pool}/tenants"),
    ("PATCH", "/v1/admin/pools/{pool}/tenants/{tenant_id}"),
    ("PATCH", "/v1/admin/models/{model_id}"),
    ("PATCH", "/v1/admin/api_keys/{api_key_id}"),
    ("GET", "/v1/admin/workers"),
    ("PATCH", "/v1/admin/workers/{worker_id}"),
    ("GET", "/v1/admin/jobs"),
    ("PATCH", "/v1/admin/jobs/{job_id}"),
    ("POST", "/v1/admin/jobs/{job_id}/cancel"),
    ("POST", "/v1/admin/jobs/{job_id}/retry"),
    ("POST", "/v1/admin/webhook_endpoints/{endpoint_id}/deliveries/{delivery_id}/resend"),
    ("POST", "/v1/admin/selftest"),
    ("GET", "/v1/admin/selftest/{self_test}"),
    ("GET", "/v1/admin/audit"),
]
BODIES: dict[str, dict[str, Any]] = {
    "/v1/generations": {"json": {"prompt": "a cat"}},
    "/v1/generations/sweep": {"json": {"prompt": "a cat"}},
    "/v1/generations/reproduce": {"json": {"file": "file_x"}},
    "/v1/trainings": {"json": {"concept": "tom"}},
    "/v1/distillations": {"json": {"name": "swift"}},
    "/v1/uploads": {"json": {"size_bytes": 1}},
    "/v1/concepts": {"json": {"name": "tom", "superclass": "cat"}},
    "/v1/concepts/import": {"json": {"file": "file_x", "concept": "imported"}},
    "/v1/concepts/tom/grants": {"json": {"tenant": "ten_x"}},
    "/v1/webhook_endpoints": {"json": {"url": "https://example.com"}},
    "/v1/webhook_endpoints/we_x": {"json": {}},
    "/v1/api_keys": {"json": {"name": "k", "scopes": ["read"]}},
    "/v1/api_keys/key_x/rotate": {"json": {}},
    "/v1/members/usr_x": {"json": {"role": "viewer"}},
    "/v1/invitations": {"json": {"email": "a@example.com"}},
    "/v1/webhook_endpoints/we_x/recover": {"json": {"since": "2026-11-21T09:30:00Z"}},
    "/v1/files": {"files": {"file": ("x", b"x")}},
}


@pytest.fixture(scope="module")
def keyring(deployment, url):
    """A client for each set of scopes: those with one scope only, and those that lack one."""
    tenant = Tenant(deployment, url, "keyring")
    names = ("generate", "train", "distill", "read", "admin")
    sets = {name: frozenset({name}) for name in names}
    sets |= {f"not {name}": frozenset(names) - {name, "admin"} for name in names}
    clients = {name: tenant.client(scopes) for name, scopes in sets.items()}
    yield clients
    for client in (*clients.values(), tenant.http):
        client.close()


def send(client, method, path):
    body = BODIES.get(path, {}) if method in {"POST", "PATCH"} else {}
    return client.request(method, path, **body)


@pytest.mark.parametrize(("method", "path", "scope"), SCOPES_OF)
def test_each_route_takes_a_key_with_its_scope_and_no_other(keyring, method, path, scope):
    problem = refused(send(keyring[f"not {scope}"], method, path), 403, "forbidden")
    assert scope in problem["detail"]
    for allowed in (scope, "admin"):
        assert send(keyring[allowed], method, path).status_code not in {401, 403}


@pytest.mark.parametrize(("method", "path"), OF_OPERATORS)
def test_what_is_for_operators_takes_no_customer_s_key(keyring, method, path):
    refused(keyring["admin"].request(method, path, json={"paused": True}), 403, "forbidden")


def test_every_route_is_covered_by_that(url):
    document = httpx.get(f"{url}/openapi.json", verify=False).json()
    open_to_all = {
        ("GET", "/healthz"),
        ("GET", "/readyz"),
        ("PUT", "/v1/uploads/{upload_id}/content"),  # to whoever has a signed address
        ("POST", "/v1/sessions"),
        ("POST", "/v1/invitations/accept"),
    }
    for_any_caller = {("GET", "/v1/sessions/current"), ("DELETE", "/v1/sessions/current")}
    for_users = {("PUT", "/v1/sessions/current/password")}
    by_kind_of_job = {("POST", f"/v1/jobs/{path}") for path in ("{job_id}/cancel", "{job_id}/retry", "cancel", "retry")}
    by_kind_of_job.add(("POST", "/v1/quotes"))
    documented = {(method.upper(), path) for path, methods in document["paths"].items() for method in methods}
    pattern = {"file_x": "{file_id}", "tom": "{name_or_id}", "storybook": "{name_or_id}", "job_x": "{job_id}"}
    pattern |= {
        "upl_x": "{upload_id}",
        "we_x": "{endpoint_id}",
        "dlv_x": "{delivery_id}",
        "key_x": "{key_id}",
        "usr_x": "{user_id}",
        "inv_x": "{invitation_id}",
        "ten_x": "{tenant_id}",
    }
    covered = {(m, "/".join(pattern.get(part, part) for part in path.split("/"))) for m, path, _ in SCOPES_OF}
    assert documented == covered | set(OF_OPERATORS) | open_to_all | for_any_caller | for_users | by_kind_of_job


def test_a_job_is_canceled_by_a_key_that_could_have_made_it(acme):
    job_id = acme.generate()["id"]
    with acme.client(frozenset({"train", "read"})) as trainer, acme.client(frozenset({"generate"})) as generator:
        refused(trainer.post(f"/v1/jobs/{job_id}/cancel"), 403, "forbidden")
        assert generator.post(f"/v1/jobs/{job_id}/cancel").json()["state"] == "canceled"


@pytest.mark.parametrize(
    "header",
    [None, "", "Bearer", f"Bearer {keys.new_key()}", f"Bearer {MALFORMED}", "Basic YTpi", "Bearer é"],
    ids=["none", "empty", "no key", "unknown key", "malformed key", "another scheme", "not ASCII"],
)
@pytest.mark.parametrize("method", ["GET", "POST"])
def test_without_a_key_that_works_nothing_is_answered(url, header, method):
    headers = {} if header is None else {"Authorization": header.encode()}
    response = httpx.request(method, f"{url}/v1/generations", headers=headers, json={"prompt": "a"}, verify=False)
    refused(response, 401, "unauthenticated")
    assert response.headers["www-authenticate"] == "Bearer"
    assert response.headers.get("x-should-retry") == ("false" if method == "POST" else None)


def test_a_revoked_key_works_no_more(acme):
    with acme.deployment.owner.begin() as connection:
        connection.exec_driver_sql("UPDATE api_keys SET revoked_at = now() WHERE tenant_id = %s", (acme.id,))
    refused(acme.http.get("/v1/jobs"), 401, "unauthenticated")


def test_every_request_has_an_id_of_its_own(acme):
    ids = {acme.http.get("/v1/models", headers={"X-Request-Id": "mine"}).headers["x-request-id"] for _ in range(3)}
    assert len(ids) == 3
    assert all(request_id.startswith("req_") for request_id in ids)


@pytest.mark.parametrize(
    ("method", "path", "status", "code"),
    [
        ("GET", "/v1/nothing", 404, "not-found"),
        ("GET", "/nothing", 404, "not-found"),
        ("PUT", "/v1/jobs", 405, "method-not-allowed"),
        ("DELETE", "/v1/generations", 405, "method-not-allowed"),
        ("GET", "/v1/files?after=%00", 400, "invalid-request"),
        ("GET", "/v1/concepts/tom/content?version=0", 422, "validation"),
    ],
)
def test_what_leads_nowhere_is_a_problem_too(acme, method, path, status, code):
    refused(acme.http.request(method, path), status, code)


def test_everything_wrong_is_listed(acme):
    problem = refused(acme.http.post("/v1/generations", json={"prompt": "", "n": 0}), 422, "validation")
    assert [wrong["param"] for wrong in problem["errors"]] == ["prompt", "n"]
    assert problem["error"] == {
        "message": problem["detail"],
        "type": "invalid_request_error",
        "param": "prompt",
        "code": "validation",
    }


def test_an_error_never_echoes_what_was_sent(acme):
    body = {"prompt": "a cat", "seed": "sk-secret"}
    assert "sk-secret" not in acme.http.post("/v1/generations", json=body).text


def test_health_needs_no_key(url):
    assert httpx.get(f"{url}/healthz", verify=False).json() == {"status": "ok"}
    ready = httpx.get(f"{url}/readyz", verify=False)
    assert (ready.status_code, ready.json()) == (200, {"ready": True, "database": True, "object_store": True})


def test_the_openapi_document_describes_every_field_that_is_sent_and_every_error_as_a_problem(url):
    document = httpx.get(f"{url}/openapi.json", verify=False).json()
    for name in ("CreateTraining", "CreateGeneration", "CreateSweep", "CreateConcept", "ChosenConcept", "ChosenSweep"):
        for field, schema in document["components"]["schemas"][name]["properties"].items():
            assert schema.get("description"), f"{name}.{field}"
    operations = [operation for path in document["paths"].values() for operation in path.values()]
    assert len({operation["operationId"] for operation in operations}) == len(operations)
    for operation in operations:
        for status, response in operation["responses"].items():
            if status >= "400" and "Health" not in operation["tags"]:
                assert list(response["content"]) == ["application/problem+json"]
