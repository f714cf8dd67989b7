"""Signing in, what a role may do, and signing out."""

from __future__ import annotations

import httpx
import pytest
from sqlalchemy import text

from api.main import create_app
from core.members import sessions
from core.members.roles import Role
from tests.integration.api.members import PASSWORD, browser, put_user, set_cookie, signed_in, try_to_sign_in
from tests.serving import Tenant, created, refused

BODIES = {"/v1/generations": {"prompt": "a cat"}, "/v1/invitations": {"email": "x@example.com"}}


@pytest.fixture
def email(acme: Tenant) -> str:
    """The address of acme's owner."""
    address = f"{acme.id}@example.com"
    put_user(acme, Role.OWNER, address)
    return address


def execute(tenant: Tenant, sql: str, **values: str) -> None:
    with tenant.deployment.owner.begin() as connection:
        connection.execute(text(sql), values)


def test_who_signs_in_gets_a_cookie_that_scripts_and_other_sites_do_not(acme: Tenant, email: str):
    with browser(acme) as client:
        response = try_to_sign_in(client, f"  {email.upper()}")
    session, cookie = created(response), set_cookie(response)
    assert (session["tenant_id"], session["object"]) == (acme.id, "session")
    assert {"httponly", "samesite", "path"} <= cookie.keys()
    assert (cookie["samesite"], cookie["path"]) == ("lax", "/")
    assert "secure" not in cookie
    assert cookie["lockstep_session"] not in response.text


async def test_over_tls_the_cookie_is_sent_over_tls_only(acme: Tenant, email: str):
    app = create_app(acme.deployment.settings.model_copy(update={"public_url": "https://draw.example"}))
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="https://draw.example") as client:
        response = await client.post("/v1/sessions", json={"email": email, "password": PASSWORD})
        assert "secure" in set_cookie(response)
        assert (await client.get("/v1/sessions/current")).json()["role"] == "owner"
    await app.state.resources.engine.dispose()
    await app.state.resources.operator_engine.dispose()


def test_the_token_is_stored_as_a_hash_only(acme: Tenant, email: str):
    with browser(acme) as client:
        token = set_cookie(try_to_sign_in(client, email))["lockstep_session"]
    rows = acme.deployment.scalar("SELECT json_agg(s)::text FROM user_sessions s")
    assert token not in rows


@pytest.mark.parametrize("wrong", [{"password": "correct horse"}, {"email": "nobody@example.com"}, {"tenant": "ten_x"}])
def test_who_is_not_known_does_not_come_in_and_learns_nothing(acme: Tenant, email: str, wrong: dict[str, str]):
    with browser(acme) as client:
        response = client.post("/v1/sessions", json={"email": email, "password": PASSWORD} | wrong)
    refused(response, 401, "sign-in-failed")
    assert "set-cookie" not in response.headers


@pytest.mark.parametrize("known", [True, False])
def test_tries_are_bounded_whether_or_not_there_is_such_an_account(acme: Tenant, email: str, known: bool):
    address = email if known else f"no-{email}"
    with browser(acme) as client:
        for _ in range(sessions.MOST_TRIES):
            refused(try_to_sign_in(client, address, password="wrong"), 401, "sign-in-failed")
        response = try_to_sign_in(client, address)
        refused(response, 429, "too-many-tries")
        assert response.headers["retry-after"] == "900"
        execute(acme, "UPDATE sign_in_tries SET since = since - interval '901 seconds'")
        assert try_to_sign_in(client, address).status_code == (201 if known else 401)


def test_the_right_password_forgets_the_tries_before(acme: Tenant, email: str):
    with browser(acme) as client:
        for _ in range(3):
            try_to_sign_in(client, email, password="wrong")
        created(try_to_sign_in(client, email))
        for _ in range(sessions.MOST_TRIES):
            refused(try_to_sign_in(client, email, password="wrong"), 401, "sign-in-failed")


@pytest.mark.parametrize(
    ("role", "path", "allowed"),
    [
        (Role.OWNER, "/v1/invitations", True),
        (Role.ADMIN, "/v1/invitations", True),
        (Role.MEMBER, "/v1/invitations", False),
        (Role.MEMBER, "/v1/generations", True),
        (Role.VIEWER, "/v1/generations", False),
    ],
)
def test_a_role_allows_what_its_scopes_do(acme: Tenant, role: Role, path: str, allowed: bool):
    with signed_in(acme, role) as client:
        assert client.get("/v1/jobs").status_code == 200
        assert client.post(path, json=BODIES[path]).status_code == (201 if allowed else 403)
        assert client.get("/v1/sessions/current").json()["role"] == role


def test_a_member_works_as_a_key_does_and_sees_his_tenant_only(acme: Tenant, rival: Tenant):
    theirs = rival.generate()["id"]
    with signed_in(acme, Role.MEMBER) as client:
        job = created(client.post("/v1/generations", json={"prompt": "a cat"}))
        assert acme.http.get(f"/v1/jobs/{job['id']}").json()["id"] == job["id"]
        refused(client.get(f"/v1/jobs/{theirs}"), 404, "not-found")
        acme.deployment.succeed(acme.deployment.claim(job["id"]))


def test_a_new_role_holds_from_the_next_request_on(acme: Tenant):
    with signed_in(acme, Role.MEMBER) as client:
        execute(acme, "UPDATE memberships SET role = 'viewer' WHERE tenant_id = :id", id=acme.id)
        refused(client.post("/v1/generations", json={"prompt": "a cat"}), 403, "forbidden")


def test_a_session_ends_when_its_time_is_over(acme: Tenant):
    with signed_in(acme) as client:
        execute(acme, "UPDATE user_sessions SET expires_at = lockstep_now() WHERE tenant_id = :id", id=acme.id)
        refused(client.get("/v1/jobs"), 401, "unauthenticated")


def test_who_signs_out_is_out_even_with_a_copy_of_the_cookie(acme: Tenant):
    with signed_in(acme) as client, browser(acme) as thief:
        thief.cookies.update(client.cookies)
        response = client.delete("/v1/sessions/current")
        assert response.status_code == 204
        assert set_cookie(response)["max-age"] == "0"
        refused(client.get("/v1/jobs"), 401, "unauthenticated")
        refused(thief.get("/v1/jobs"), 401, "unauthenticated")


def test_a_new_password_signs_out(acme: Tenant):
    with signed_in(acme) as client:
        put_user(acme, Role.OWNER, f"owner-{acme.id}@example.com")
        refused(client.get("/v1/jobs"), 401, "unauthenticated")


def test_whoever_changes_his_password_stays_and_his_other_sessions_end(acme: Tenant):
    address = f"owner-{acme.id}@example.com"
    with signed_in(acme) as client, browser(acme) as elsewhere:
        created(try_to_sign_in(elsewhere, address))
        change = {"password": PASSWORD, "new_password": "battery staple"}
        assert client.put("/v1/sessions/current/password", json=change).status_code == 204
        assert client.get("/v1/jobs").status_code == 200
        refused(elsewhere.get("/v1/jobs"), 401, "unauthenticated")
        refused(try_to_sign_in(elsewhere, address), 401, "sign-in-failed")
        created(try_to_sign_in(elsewhere, address, password="battery staple"))
    assert "member.password_changed" in [act["action"] for act in acme.http.get("/v1/audit").json()["data"]]


def test_a_password_is_changed_by_whoever_knows_it_and_tries_are_bounded(acme: Tenant):
    change = {"password": "wrong", "new_password": "battery staple"}
    with signed_in(acme) as client:
        for _ in range(sessions.MOST_TRIES):
            refused(client.put("/v1/sessions/current/password", json=change), 401, "sign-in-failed")
        refused(client.put("/v1/sessions/current/password", json=change), 429, "too-many-tries")
    refused(acme.http.put("/v1/sessions/current/password", json=change), 403, "forbidden")


@pytest.mark.parametrize(
    ("origin", "status"),
    [
        (None, 201),
        ("{url}", 201),
        ("https://evil.example", 403),
        ("null", 403),
        ("http://127.0.0.1:1", 403),
        ("https://evil.example/{url}", 403),
        ("http://[", 403),
    ],
)
def test_a_browser_changes_something_from_our_own_pages_only(acme: Tenant, origin: str | None, status: int):
    headers = {} if origin is None else {"Origin": origin.format(url=acme.base_url)}
    with signed_in(acme) as client:
        assert client.post("/v1/generations", json={"prompt": "a cat"}, headers=headers).status_code == status
        assert client.get("/v1/jobs", headers=headers).status_code == 200


def test_a_key_is_taken_from_anywhere_for_no_browser_sends_it_by_itself(acme: Tenant):
    headers = {"Origin": "https://shop.example"}
    created(acme.http.post("/v1/generations", json={"prompt": "a cat"}, headers=headers))


def test_nobody_is_signed_in_by_another_site(acme: Tenant, email: str):
    with browser(acme) as client:
        body = {"email": email, "password": PASSWORD}
        response = client.post("/v1/sessions", json=body, headers={"Origin": "https://evil.example"})
    refused(response, 403, "forbidden")


def test_who_belongs_to_several_tenants_picks_one(acme: Tenant, rival: Tenant, email: str):
    put_user(rival, Role.VIEWER, email)
    with browser(acme) as client:
        problem = refused(try_to_sign_in(client, email), 422, "tenant-not-chosen")
        assert acme.id in problem["detail"]
        assert rival.id in problem["detail"]
        created(try_to_sign_in(client, email, tenant=rival.id))
        assert client.get("/v1/sessions/current").json()["role"] == "viewer"


def test_a_key_says_who_it_is_too(acme: Tenant):
    caller = acme.http.get("/v1/sessions/current").json()
    assert (caller["tenant_id"], caller["user_id"], caller["role"]) == (acme.id, None, None)
    assert caller["key_id"].startswith("key_")


def test_an_operators_session_runs_the_deployment(acme: Tenant):
    execute(acme, "UPDATE tenants SET is_operator = true WHERE id = :id", id=acme.id)
    with signed_in(acme, Role.ADMIN) as client:
        assert client.get("/v1/admin/pools").status_code == 200
    with signed_in(acme, Role.MEMBER) as client:
        refused(client.get("/v1/admin/pools"), 403, "forbidden")
