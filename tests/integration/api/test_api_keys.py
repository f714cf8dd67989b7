"""API keys as a tenant's administrators make, rotate and revoke them."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import pytest
from sqlalchemy import text

from core.tenants import keys
from tests.serving import Tenant, created, refused


def make(tenant: Tenant, **body: Any) -> dict[str, Any]:
    return created(tenant.http.post("/v1/api_keys", json={"name": "k", "scopes": ["read"]} | body))


def status(tenant: Tenant, key: str, method: str = "GET", path: str = "/v1/jobs", **sent: Any) -> int:
    headers = {"Authorization": f"Bearer {key}"}
    return httpx.request(method, tenant.base_url + path, headers=headers, verify=False, **sent).status_code


def change(tenant: Tenant, key_id: str, assignment: str) -> None:
    """What time would do."""
    with tenant.deployment.owner.begin() as connection:
        connection.execute(text(f"UPDATE api_keys SET {assignment} WHERE id = :id"), {"id": key_id})


def last_used(tenant: Tenant, key_id: str) -> Any:
    return tenant.http.get(f"/v1/api_keys/{key_id}").json()["last_used_at"]


def test_a_new_key_works_within_its_scopes_and_is_told_once(acme: Tenant):
    made = make(acme, scopes=["generate", "read", "read"])
    assert keys.is_well_formed(made["key"])
    assert made["scopes"] == ["generate", "read"]
    assert status(acme, made["key"]) == 200
    assert status(acme, made["key"], "POST", "/v1/concepts", json={"name": "a", "superclass": "b"}) == 403
    shown = acme.http.get(f"/v1/api_keys/{made['id']}").json()
    assert "key" not in shown
    assert made["key"].startswith(shown["hint"].removesuffix("…"))


def test_a_key_is_stored_as_a_hash_only(acme: Tenant):
    made = make(acme)
    row = acme.deployment.scalar("SELECT to_json(k)::text FROM api_keys k WHERE id = :id", id=made["id"])
    assert made["key"] not in row
    assert keys.digest(made["key"]) in row


def test_keys_are_listed_newest_first(acme: Tenant):
    made = [make(acme, name=name)["id"] for name in ("one", "two")]
    page = acme.http.get("/v1/api_keys", params={"limit": 2}).json()
    assert [key["id"] for key in page["data"]] == made[::-1]
    assert page["has_more"] is True


def test_a_key_works_until_it_expires(acme: Tenant):
    made = make(acme, expires_at=(datetime.now(UTC) + timedelta(hours=1)).isoformat())
    assert status(acme, made["key"]) == 200
    change(acme, made["id"], "expires_at = lockstep_now()")
    assert status(acme, made["key"]) == 401
    refused(acme.http.post(f"/v1/api_keys/{made['id']}/rotate", json={}), 409, "conflict")


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({"expires_at": "2020-01-01T00:00:00Z"}, "expires_at"),
        ({"expires_at": "2099-01-01T00:00:00"}, "expires_at"),
        ({"scopes": []}, "scopes"),
        ({"scopes": ["root"]}, "scopes.0"),
        ({"max_running": -1}, "max_running"),
        ({"name": ""}, "name"),
    ],
)
def test_a_key_that_makes_no_sense_is_refused(acme: Tenant, body: dict[str, Any], param: str):
    before = acme.http.get("/v1/api_keys").json()["data"]
    response = acme.http.post("/v1/api_keys", json={"name": "k", "scopes": ["read"]} | body)
    assert refused(response, 422, "validation")["error"]["param"] == param
    assert acme.http.get("/v1/api_keys").json()["data"] == before


def test_a_rotated_key_works_beside_the_new_one_for_the_time_it_was_given(acme: Tenant):
    old = make(acme, scopes=["generate", "read"], max_running=3)
    new = acme.http.post(f"/v1/api_keys/{old['id']}/rotate", json={"overlap_seconds": 3600}).json()
    assert (new["id"], new["scopes"], new["max_running"]) == (old["id"], old["scopes"], 3)
    assert (status(acme, old["key"]), status(acme, new["key"])) == (200, 200)
    change(acme, old["id"], "previous_until = lockstep_now()")
    assert (status(acme, old["key"]), status(acme, new["key"])) == (401, 200)


def test_a_rotation_without_overlap_ends_the_old_key_at_once(acme: Tenant):
    old = make(acme)
    new = acme.http.post(f"/v1/api_keys/{old['id']}/rotate", json={"overlap_seconds": 0}).json()
    assert (status(acme, old["key"]), status(acme, new["key"])) == (401, 200)


def test_a_second_rotation_ends_the_first_key(acme: Tenant):
    first = make(acme)
    second, third = (acme.http.post(f"/v1/api_keys/{first['id']}/rotate", json={}).json() for _ in range(2))
    assert [status(acme, made["key"]) for made in (first, second, third)] == [401, 200, 200]


def test_a_revoked_key_and_the_one_it_replaced_work_no_more(acme: Tenant):
    old = make(acme)
    new = acme.http.post(f"/v1/api_keys/{old['id']}/rotate", json={}).json()
    for _ in range(2):  # revoking twice is no error
        assert acme.http.delete(f"/v1/api_keys/{old['id']}").status_code == 204
    assert [status(acme, made["key"]) for made in (old, new)] == [401, 401]
    assert acme.http.get(f"/v1/api_keys/{old['id']}").json()["revoked_at"] is not None
    refused(acme.http.post(f"/v1/api_keys/{old['id']}/rotate", json={}), 409, "conflict")


def test_the_cap_of_a_key_holds_for_its_jobs(acme: Tenant):
    made = make(acme, scopes=["generate"], max_running=0)
    headers = {"Authorization": f"Bearer {made['key']}"}
    job = httpx.post(f"{acme.base_url}/v1/generations", headers=headers, json={"prompt": "a cat"}, verify=False).json()
    assert acme.http.get(f"/v1/jobs/{job['id']}/why").json()["reason"] == "key_cap"


def test_the_last_use_is_written_at_most_once_a_minute(acme: Tenant):
    made = make(acme)
    assert last_used(acme, made["id"]) is None
    status(acme, made["key"])
    first = last_used(acme, made["id"])
    assert first is not None
    status(acme, made["key"])
    assert last_used(acme, made["id"]) == first
    change(acme, made["id"], "last_used_at = last_used_at - interval '61 seconds'")
    status(acme, made["key"])
    assert last_used(acme, made["id"]) > first


def test_a_key_that_is_being_changed_is_not_waited_for(acme: Tenant):
    made = make(acme)
    with acme.deployment.owner.begin() as connection:
        connection.execute(text("SELECT 1 FROM api_keys WHERE id = :id FOR UPDATE"), {"id": made["id"]})
        assert status(acme, made["key"]) == 200


def test_what_is_done_with_keys_is_written_down_without_them(acme: Tenant):
    made = make(acme, name="shop")
    acme.http.post(f"/v1/api_keys/{made['id']}/rotate", json={})
    acme.http.delete(f"/v1/api_keys/{made['id']}")
    with acme.deployment.owner.begin() as connection:
        rows = connection.execute(
            text("SELECT * FROM audit_log WHERE object_id = :id ORDER BY created_at, id"), {"id": made["id"]}
        ).all()
    assert [row.action for row in rows] == ["api_key.created", "api_key.rotated", "api_key.revoked"]
    assert {row.tenant_id for row in rows} == {acme.id}
    assert all(row.actor.startswith("key_") and row.request_id.startswith("req_") for row in rows)
    assert rows[0].after["name"] == "shop"
    assert made["key"] not in str(rows)
    assert keys.digest(made["key"]) not in str(rows)
