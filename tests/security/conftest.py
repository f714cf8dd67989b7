"""The API on real servers, and two tenants that must never meet."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from core.config import Settings
from core.members.roles import Role
from tests.integration.api.members import browser, put_user, try_to_sign_in
from tests.serving import Deployment, Tenant, created, serving


@pytest.fixture(scope="module")
def deployment(stack_settings: Settings) -> Iterator[Deployment]:
    made = Deployment(stack_settings)
    yield made
    made.close()


@pytest.fixture(scope="module")
def url(deployment: Deployment) -> Iterator[str]:
    with serving(deployment.settings) as base_url:
        yield base_url


@pytest.fixture(scope="module")
def owner(deployment: Deployment, url: str) -> Iterator[Tenant]:
    """A tenant that has one of everything."""
    tenant = Tenant(deployment, url, "owner")
    with tenant.http:
        yield tenant


@pytest.fixture(scope="module")
def stranger(deployment: Deployment, url: str) -> Iterator[Tenant]:
    """A tenant that has nothing and knows every id of the owner's."""
    tenant = Tenant(deployment, url, "stranger")
    with tenant.http:
        yield tenant


@pytest.fixture(scope="module")
def friend(deployment: Deployment, url: str) -> Iterator[Tenant]:
    """A tenant that has a concept, which the owner may draw with, and may draw with the owner's."""
    tenant = Tenant(deployment, url, "friend")
    with tenant.http:
        yield tenant


@pytest.fixture(scope="module")
def belongings(owner: Tenant, friend: Tenant) -> dict[str, str]:
    """The owner's ids: a row in every table that belongs to tenants."""
    hook = owner.http.post("/v1/webhook_endpoints", json={"url": "https://hooks.example.com/"}).json()["id"]
    concept = owner.trained("tom")
    training = owner.http.get("/v1/trainings").json()["data"][0]["id"]
    generation = owner.generate("<tom>", headers={"Idempotency-Key": "k"})["id"]
    owner.deployment.succeed(owner.deployment.claim(generation))
    queued = owner.generate("<tom>")["id"]
    with owner.deployment.owner.begin() as connection:
        connection.exec_driver_sql(
            "INSERT INTO webhook_attempts (delivery_id, attempt, tenant_id, duration_ms)"
            " SELECT id, 1, tenant_id, 5 FROM webhook_deliveries WHERE tenant_id = %s",
            (owner.id,),
        )
    member = put_user(owner, Role.OWNER)
    with browser(owner) as client:
        session = created(try_to_sign_in(client))["id"]
    invitation = created(owner.http.post("/v1/invitations", json={"email": "new@example.com"}))["id"]
    lent = friend.trained("rex")
    created(friend.http.post("/v1/concepts/rex/grants", json={"tenant": owner.id}))
    created(owner.http.post("/v1/concepts/tom/grants", json={"tenant": friend.id}))
    owner.generate("<rex>", concepts=[{"id": lent}])
    return {
        "tenant": owner.id,
        "friend": friend.id,
        "lent": lent,
        "key": owner.http.get("/v1/api_keys").json()["data"][0]["id"],
        "member": member,
        "session": session,
        "invitation": invitation,
        "file": owner.upload()["id"],
        "upload": created(owner.http.post("/v1/uploads", json={"size_bytes": 5}))["id"],
        "concept": concept,
        "training": training,
        "generation": generation,
        "queued": queued,
        "event": owner.http.get("/v1/events").json()["data"][0]["id"],
        "hook": hook,
        "delivery": owner.http.get(f"/v1/webhook_endpoints/{hook}/deliveries").json()["data"][0]["id"],
    }
