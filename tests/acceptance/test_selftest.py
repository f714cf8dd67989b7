"""The self test on the whole system: every stage with the real parts, and nothing left behind."""

from __future__ import annotations

from typing import Any

import httpx

from tests.waiting import until


def test_a_whole_system_passes_its_self_test(stack):
    created = stack.lockstepd("admin", "create-tenant", "Operators")
    tenant, key = created.split("tenant: ")[1].split()[0], created.split("key: ")[1].strip()
    stack.lockstepd("admin", "make-operator", tenant)
    headers = {"Authorization": f"Bearer {key}"}
    with httpx.Client(base_url=stack.url, headers=headers, timeout=20) as operator:
        response = operator.post("/v1/admin/selftest")
        assert response.status_code == 202, response.text
        told: dict[str, Any] = {}

        def has_ended() -> bool:
            told.update(operator.get(response.headers["location"]).json())
            return told["finished_at"] is not None

        until(has_ended, seconds=120)
        assert [(stage["name"], stage["state"], stage["error"]) for stage in told["stages"]] == [
            (name, "ok", None)
            for name in (
                "database", "api", "storage", "submission", "generation", "result", "webhook", "cleanup"
            )
        ]  # fmt: skip
        assert told["state"] == "succeeded"
        jobs = operator.get("/v1/admin/jobs?limit=100").json()["data"]
        tenants = operator.get("/v1/admin/pools/gpu/tenants?limit=100").json()["data"]
    assert "Self test" not in {row["name"] for row in tenants}
    gone = {job["tenant_id"] for job in jobs} - {row["tenant_id"] for row in tenants}
    assert gone == set()
