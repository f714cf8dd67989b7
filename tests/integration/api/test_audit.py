"""The audit log as a tenant's administrators read it."""

from __future__ import annotations

from typing import Any

from sqlalchemy.orm import Session

from core.tenants.provisioning import make_operator
from tests.serving import POOL, Tenant, created, refused


def acts(tenant: Tenant, **page: Any) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = tenant.http.get("/v1/audit", params=page).json()["data"]
    return found


def make(tenant: Tenant) -> str:
    return str(created(tenant.http.post("/v1/api_keys", json={"name": "k", "scopes": ["read"]}))["id"])


def test_administrators_see_what_was_done_in_their_tenants_name_the_latest_first(acme: Tenant, rival: Tenant):
    key_ids = [make(acme) for _ in range(3)]
    make(rival)
    assert [act["object_id"] for act in acts(acme)] == key_ids[::-1]
    (first,) = acts(acme, limit=1)
    assert (first["action"], first["tenant_id"]) == ("api_key.created", acme.id)
    assert first["after"]["scopes"] == ["read"]
    assert [act["object_id"] for act in acts(acme, after=first["id"])] == key_ids[1::-1]


def test_they_see_what_operators_did_to_it(acme: Tenant, rival: Tenant):
    with Session(acme.deployment.owner) as session, session.begin():
        make_operator(session, rival.id)
    acme.generate()
    rival.http.patch(f"/v1/admin/pools/{POOL}/tenants/{acme.id}", json={"paused": True})
    (act,) = acts(acme)
    assert (act["action"], act["before"], act["after"]) == ("tenant.changed", {"paused": False}, {"paused": True})
    assert acts(rival) == []


def test_another_tenants_act_is_no_place_to_page_from(acme: Tenant, rival: Tenant):
    make(acme)
    refused(rival.http.get("/v1/audit", params={"after": acts(acme)[0]["id"]}), 404, "not-found")
