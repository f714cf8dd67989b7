"""The operators' pages about customers, and what operators do in a customer's place."""

from __future__ import annotations

import pytest
from sqlalchemy import text

from core.jobs.retry import JobError
from core.jobs.states import JobState
from tests.integration.api.pages.test_operations import seen
from tests.integration.api.test_webhook_endpoints import endpoint, owing
from tests.serving import Tenant, refused


@pytest.fixture
def failed(acme: Tenant) -> str:
    job = acme.deployment.claim(acme.generate()["id"])
    acme.deployment.end(job, JobState.FAILED, JobError("internal-error", "It broke.", retryable=False))
    return job.id


def delivery_states(tenant: Tenant, path: str) -> list[str]:
    return [row["state"] for row in tenant.http.get(f"{path}/deliveries").json()["data"]]


def give_up(tenant: Tenant) -> None:
    """What was owed to the tenant's endpoints has failed for good."""
    with tenant.deployment.owner.begin() as connection:
        gave_up = "UPDATE webhook_deliveries SET state = 'failed', next_attempt_at = NULL WHERE tenant_id = :id"
        connection.execute(text(gave_up), {"id": tenant.id})


def test_a_tenants_page_tells_its_money(acme: Tenant, operator: Tenant):
    acme.http.put("/v1/budgets", json={"limit": 3600, "period": "month"})
    acme.deployment.succeed(acme.deployment.claim(acme.generate()["id"]))
    told = seen(operator.http.get(f"/admin/tenants/{acme.id}"))
    assert "the tenant 1 h yes yes 1.5 s" in told
    assert "generation 1 1.5 s" in told
    assert "settle" in told
    assert "reserve" in told


def test_a_tenant_is_found_in_the_list_and_by_its_id(acme: Tenant, operator: Tenant):
    assert acme.id in seen(operator.http.get("/admin/tenants"))
    response = operator.http.get("/admin/tenants", params={"tenant": acme.id})
    assert (response.status_code, response.headers["location"]) == (303, f"/admin/tenants/{acme.id}")
    assert operator.http.get("/admin/tenants", params={"tenant": "ten_nobody"}).status_code == 404


def test_the_ledger_is_read_page_by_page(acme: Tenant, operator: Tenant):
    jobs = [acme.generate()["id"] for _ in range(3)]
    entry = "SELECT id FROM ledger_entries WHERE job_id = :job_id"
    middle = acme.deployment.scalar(entry, job_id=jobs[1])
    told = seen(operator.http.get(f"/admin/tenants/{acme.id}", params={"after": middle}))
    assert [job in told for job in jobs] == [True, False, False]


def test_only_endpoints_in_trouble_are_listed_and_all_of_a_tenant(acme: Tenant, operator: Tenant):
    well, ill = endpoint(acme, name="well"), endpoint(acme, name="ill")
    acme.http.post(f"/v1/webhook_endpoints/{ill['id']}/disable")
    listed = seen(operator.http.get("/admin/webhooks"))
    assert "ill https://" in listed
    assert "well https://" not in listed
    of_tenant = seen(operator.http.get(f"/admin/tenants/{acme.id}"))
    assert well["name"] in of_tenant
    assert "disabled: requested" in of_tenant


def test_a_delivery_is_sent_again_and_written_down(acme: Tenant, operator: Tenant):
    path, (owed,) = owing(acme)
    give_up(acme)
    page = path.replace("/v1/webhook_endpoints", "/admin/webhooks")
    assert "generation.queued" in seen(operator.http.get(page, params={"state": "failed"}))
    assert operator.http.post(f"{page}/deliveries/{owed['id']}/resend").status_code == 303
    assert delivery_states(acme, path) == ["pending"]
    assert "webhook_delivery.resent" in seen(operator.http.get(f"/admin/audit?tenant={acme.id}"))


def test_an_endpoint_is_enabled_for_its_tenant(acme: Tenant, operator: Tenant):
    made = endpoint(acme)
    acme.http.post(f"/v1/webhook_endpoints/{made['id']}/disable")
    assert "Enable" in seen(operator.http.get(f"/admin/webhooks/{made['id']}"))
    assert operator.http.post(f"/admin/webhooks/{made['id']}/enable").status_code == 303
    assert acme.http.get(f"/v1/webhook_endpoints/{made['id']}").json()["disabled_at"] is None


def test_a_failed_job_is_tried_again_from_its_page(acme: Tenant, operator: Tenant, failed: str):
    response = operator.http.post(f"/admin/jobs/{failed}/retry", headers={"HX-Request": "true"})
    again = acme.http.get(f"/v1/jobs/{response.headers['HX-Redirect'].rpartition('/')[2]}").json()
    assert (again["state"], again["retry_of"]) == ("queued", failed)
    (entry, *_) = acme.http.get("/v1/audit").json()["data"]
    assert (entry["action"], entry["object_id"], entry["after"]) == ("job.retried", failed, {"job_id": again["id"]})


def test_the_api_retries_and_resends_too(acme: Tenant, operator: Tenant, failed: str):
    made = operator.http.post(f"/v1/admin/jobs/{failed}/retry")
    assert (made.status_code, made.json()["tenant_id"]) == (201, acme.id)
    refused(operator.http.post(f"/v1/admin/jobs/{failed}/retry"), 409, "not-retryable")
    path, (owed,) = owing(acme)
    give_up(acme)
    resent = operator.http.post(f"{path.replace('/v1', '/v1/admin')}/deliveries/{owed['id']}/resend")
    assert (resent.status_code, resent.json()["state"]) == (202, "pending")


def test_pictures_of_a_job_are_shown_and_nothing_else_of_its_tenant(acme: Tenant, operator: Tenant):
    upload = acme.upload()["id"]
    job = acme.deployment.claim(acme.generate()["id"])
    (picture,) = acme.deployment.succeed(job)["images"]
    path = f"/admin/jobs/{job.id}/pictures"
    assert f"{path}/{picture['file_id']}" in operator.http.get(f"/admin/jobs/{job.id}").text
    assert operator.http.get(f"{path}/{picture['file_id']}").headers["content-type"] == "image/png"
    refused(operator.http.get(f"{path}/{upload}"), 404, "not-found")


def test_acts_in_a_customers_place_are_for_operators(acme: Tenant, failed: str):
    path, (owed,) = owing(acme)
    delivery = f"{path.removeprefix('/v1/webhook_endpoints')}/deliveries/{owed['id']}/resend"
    for act in (
        f"/admin/jobs/{failed}/retry",
        f"/admin/webhooks{delivery}",
        f"/v1/admin/jobs/{failed}/retry",
        f"/v1/admin/webhook_endpoints{delivery}",
    ):
        refused(acme.http.post(act), 403, "forbidden")
    for page in ("/admin/tenants", f"/admin/tenants/{acme.id}", "/admin/webhooks", f"/admin/jobs/{failed}/pictures/x"):
        refused(acme.http.get(page), 403, "forbidden")
