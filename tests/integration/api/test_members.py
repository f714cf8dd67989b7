"""Members, their roles, and invitations."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import pytest
from sqlalchemy import text

from core.members.roles import Role
from core.members.statements import ACCEPT_INVITATION
from core.members.tokens import digest
from tests.integration.api.members import PASSWORD, browser, put_user, signed_in, try_to_sign_in
from tests.serving import Tenant, created, refused


def invite(client: httpx.Client, email: str, role: str = "member") -> dict[str, Any]:
    return created(client.post("/v1/invitations", json={"email": email, "role": role}))


def accept(tenant: Tenant, token: str, password: str = PASSWORD, **body: Any) -> httpx.Response:
    with browser(tenant) as client:
        return client.post("/v1/invitations/accept", json={"token": token, "password": password} | body)


def users(tenant: Tenant, email: str) -> int:
    return int(tenant.deployment.scalar("SELECT count(*) FROM users WHERE email = :email", email=email))


def test_whoever_has_the_token_becomes_a_member_and_signs_in(acme: Tenant):
    email = f"new-{acme.id}@example.com"
    invitation = invite(acme.http, email.upper())
    member = created(accept(acme, invitation["token"], name="Nora"))
    assert (member["email"], member["name"], member["role"]) == (email, "Nora", "member")
    with browser(acme) as client:
        assert created(try_to_sign_in(client, email))["tenant_id"] == acme.id


def test_a_token_is_told_once_stored_as_a_hash_and_works_once(acme: Tenant):
    invitation = invite(acme.http, f"once-{acme.id}@example.com")
    (listed,) = acme.http.get("/v1/invitations").json()["data"]
    assert listed == {name: value for name, value in invitation.items() if name != "token"}
    assert invitation["token"] not in acme.deployment.scalar("SELECT json_agg(i)::text FROM invitations i")
    created(accept(acme, invitation["token"]))
    refused(accept(acme, invitation["token"]), 404, "not-found")
    assert acme.http.get("/v1/invitations").json()["data"] == []


@pytest.mark.parametrize("how", ["expired", "withdrawn", "replaced"])
def test_an_invitation_that_is_over_makes_nobody_a_member(acme: Tenant, how: str):
    email = f"{how}-{acme.id}@example.com"
    invitation = invite(acme.http, email)
    if how == "expired":
        with acme.deployment.owner.begin() as connection:
            connection.execute(text("UPDATE invitations SET expires_at = lockstep_now()"))
    elif how == "withdrawn":
        assert acme.http.delete(f"/v1/invitations/{invitation['id']}").status_code == 204
        refused(acme.http.delete(f"/v1/invitations/{invitation['id']}"), 404, "not-found")
    else:
        invite(acme.http, email)
    refused(accept(acme, invitation["token"]), 404, "not-found")
    assert users(acme, email) == 0


def test_a_user_joins_another_tenant_with_the_password_he_has(acme: Tenant, rival: Tenant):
    email = f"both-{acme.id}@example.com"
    user_id = put_user(rival, Role.OWNER, email)
    token = invite(acme.http, email, "viewer")["token"]
    refused(accept(acme, token, "some other password"), 401, "sign-in-failed")
    assert created(accept(acme, token))["id"] == user_id
    with browser(acme) as client:
        created(try_to_sign_in(client, email, tenant=acme.id))
        created(try_to_sign_in(client, email, tenant=rival.id))


def test_nobody_joins_by_a_password_that_somebody_else_chose_for_the_address_meanwhile(acme: Tenant, rival: Tenant):
    """Whoever takes the address between the look at it and the joining gets no way into the tenant that invites."""
    email = f"raced-{acme.id}@example.com"
    token = invite(acme.http, email, "admin")["token"]
    put_user(rival, Role.OWNER, email)  # after the one invited was found to have no account
    with acme.deployment.owner.begin() as connection:
        asked = {"sha256": digest(token), "user_id": "usr_late", "name": "", "hash": "of another password"}
        assert connection.execute(ACCEPT_INVITATION, asked).all() == []
        connection.rollback()
    created(accept(acme, token))


def test_of_many_who_invite_one_address_at_once_none_breaks(acme: Tenant):
    email = f"wanted-{acme.id}@example.com"

    def ask(_: int) -> int:
        return acme.http.post("/v1/invitations", json={"email": email}).status_code

    with ThreadPoolExecutor(8) as threads:
        assert set(threads.map(ask, range(24))) == {201}
    (left,) = acme.http.get("/v1/invitations").json()["data"]
    assert left["email"] == email


def test_a_new_password_has_to_be_long(acme: Tenant):
    token = invite(acme.http, f"short-{acme.id}@example.com")["token"]
    problem = refused(accept(acme, token, "123456789"), 422, "validation")
    assert problem["error"]["param"] == "password"


def test_a_member_is_not_invited_again(acme: Tenant):
    put_user(acme, Role.MEMBER, f"there-{acme.id}@example.com")
    response = acme.http.post("/v1/invitations", json={"email": f"there-{acme.id}@example.com"})
    refused(response, 409, "conflict")


def test_members_are_listed_with_their_roles_and_no_passwords(acme: Tenant, rival: Tenant):
    put_user(rival, Role.OWNER, f"theirs-{acme.id}@example.com")
    ids = [put_user(acme, role, f"{role}-{acme.id}@example.com") for role in (Role.OWNER, Role.VIEWER)]
    page = acme.http.get("/v1/members").json()
    assert [(member["id"], member["role"]) for member in page["data"]] == [(ids[1], "viewer"), (ids[0], "owner")]
    assert "argon2" not in str(page)
    following = acme.http.get("/v1/members", params={"after": ids[1]}).json()["data"]
    assert [member["id"] for member in following] == ids[:1]


def test_an_administrator_changes_and_removes_members(acme: Tenant):
    user_id = put_user(acme, Role.MEMBER, f"m-{acme.id}@example.com")
    with signed_in(acme, Role.ADMIN) as client:
        changed = client.patch(f"/v1/members/{user_id}", json={"role": "viewer"})
        assert changed.json()["role"] == "viewer"
        assert client.delete(f"/v1/members/{user_id}").status_code == 204
        refused(client.delete(f"/v1/members/{user_id}"), 404, "not-found")


def test_only_owners_touch_owners(acme: Tenant):
    owner_id = put_user(acme, Role.OWNER, f"o-{acme.id}@example.com")
    member_id = put_user(acme, Role.MEMBER, f"m-{acme.id}@example.com")
    with signed_in(acme, Role.ADMIN) as admin:
        for client in (admin, acme.http):
            refused(client.patch(f"/v1/members/{member_id}", json={"role": "owner"}), 403, "forbidden")
            refused(client.patch(f"/v1/members/{owner_id}", json={"role": "viewer"}), 403, "forbidden")
            refused(client.delete(f"/v1/members/{owner_id}"), 403, "forbidden")
            refused(client.post("/v1/invitations", json={"email": "a@b.c", "role": "owner"}), 403, "forbidden")
    with signed_in(acme, Role.OWNER) as client:
        assert client.patch(f"/v1/members/{member_id}", json={"role": "owner"}).json()["role"] == "owner"
        assert client.delete(f"/v1/members/{owner_id}").status_code == 204


def test_the_last_owner_stays(acme: Tenant):
    with signed_in(acme, Role.OWNER) as client:
        user_id = client.get("/v1/sessions/current").json()["user_id"]
        refused(client.delete(f"/v1/members/{user_id}"), 409, "conflict")
        refused(client.patch(f"/v1/members/{user_id}", json={"role": "admin"}), 409, "conflict")
        assert client.patch(f"/v1/members/{user_id}", json={"role": "owner"}).status_code == 200


def test_who_is_removed_is_out_at_once_and_forgotten_with_his_last_membership(acme: Tenant, rival: Tenant):
    with signed_in(acme, Role.MEMBER) as client:
        email, user_id = f"member-{acme.id}@example.com", client.get("/v1/sessions/current").json()["user_id"]
        put_user(rival, Role.VIEWER, email)
        created(try_to_sign_in(client, email, tenant=acme.id))
        acme.http.delete(f"/v1/members/{user_id}")
        refused(client.get("/v1/jobs"), 401, "unauthenticated")
        assert users(acme, email) == 1
        rival.http.delete(f"/v1/members/{user_id}")
        assert users(acme, email) == 0


def test_what_is_done_with_members_is_written_down(acme: Tenant):
    email = f"n-{acme.id}@example.com"
    invitation = invite(acme.http, email)
    user_id = created(accept(acme, invitation["token"]))["id"]
    acme.http.patch(f"/v1/members/{user_id}", json={"role": "viewer"})
    with browser(acme) as client:
        try_to_sign_in(client, email)
        client.delete("/v1/sessions/current")
    acme.http.delete(f"/v1/members/{user_id}")
    with acme.deployment.owner.begin() as connection:
        found = text(
            "SELECT action, actor = :user AS by_himself, after FROM audit_log WHERE tenant_id = :id ORDER BY id"
        )
        rows = connection.execute(found, {"id": acme.id, "user": user_id}).all()
    assert [(row.action, row.by_himself) for row in rows] == [
        ("member.invited", False),
        ("member.joined", True),
        ("member.changed", False),
        ("session.started", True),
        ("session.ended", True),
        ("member.removed", False),
    ]
    assert invitation["token"] not in str(rows)
    assert PASSWORD not in str(rows)
