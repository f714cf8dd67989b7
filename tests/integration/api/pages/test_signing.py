"""Signing in at the page, being sent where one wanted to go, and out again."""

from __future__ import annotations

import httpx
import pytest
from sqlalchemy.orm import Session

from core.members.roles import Role
from core.tenants.provisioning import make_operator
from tests.integration.api.members import PASSWORD, browser, put_user
from tests.serving import Tenant, refused

HTML = {"Accept": "text/html"}


@pytest.fixture
def email(operator: Tenant) -> str:
    address = f"{operator.id}@example.com"
    put_user(operator, Role.OWNER, address)
    return address


def sign_in(client: httpx.Client, email: str, **form: str) -> httpx.Response:
    return client.post("/sign-in", data={"email": email, "password": PASSWORD} | form)


def test_a_stranger_is_sent_to_sign_in_and_from_there_where_he_wanted_to_go(operator: Tenant, email: str):
    with browser(operator) as client:
        response = client.get("/admin/jobs?state=failed", headers=HTML)
        assert (response.status_code, response.headers["location"]) == (303, "/sign-in?to=/admin/jobs%3Fstate%3Dfailed")
        asked = client.get(response.headers["location"])
        assert 'name="to" value="/admin/jobs?state=failed"' in asked.text
        response = sign_in(client, email, to="/admin/jobs?state=failed")
        assert (response.status_code, response.headers["location"]) == (303, "/admin/jobs?state=failed")
        assert client.get("/admin/jobs?state=failed", headers=HTML).status_code == 200


@pytest.mark.parametrize("address", ["https://evil.example", "//evil.example", "/\\evil.example", "evil"])
def test_nobody_is_sent_to_another_site(operator: Tenant, email: str, address: str):
    with browser(operator) as client:
        assert sign_in(client, email, to=address).headers["location"] == "/"


def test_a_wrong_password_is_told_and_opens_nothing(operator: Tenant, email: str):
    with browser(operator) as client:
        response = sign_in(client, email, password="not the password")
        assert response.status_code == 401
        assert "The email address or the password is wrong." in response.text
        assert f'value="{email}"' in response.text
        assert client.get("/admin", headers=HTML).status_code == 303


def test_a_form_of_another_site_signs_nobody_in(operator: Tenant, email: str):
    with browser(operator) as client:
        response = client.post(
            "/sign-in", data={"email": email, "password": PASSWORD}, headers={"Origin": "https://evil.example"}
        )
        assert response.status_code == 403
        assert "set-cookie" not in response.headers


def test_a_form_of_another_site_acts_for_nobody(operator: Tenant, email: str):
    with browser(operator) as client:
        sign_in(client, email)
        refused(
            client.post("/admin/pools/gpu", data={"paused": "true"}, headers={"Origin": "https://evil.example"}),
            403,
            "forbidden",
        )


def test_whoever_belongs_to_several_tenants_is_asked_for_one(operator: Tenant, acme: Tenant, email: str):
    put_user(acme, Role.OWNER, email)
    with browser(operator) as client:
        response = sign_in(client, email)
        assert 'name="tenant"' in response.text
        assert operator.id in response.text
        assert sign_in(client, email, tenant=operator.id).status_code == 303


def test_a_customer_is_told_that_a_page_is_for_operators(acme: Tenant):
    put_user(acme, Role.OWNER, f"{acme.id}@example.com")
    with browser(acme) as client:
        sign_in(client, f"{acme.id}@example.com")
        response = client.get("/admin", headers=HTML)
        assert (response.status_code, response.headers["content-type"]) == (403, "text/html; charset=utf-8")
        assert "This is for operators of the deployment." in response.text


def test_a_viewer_of_the_operators_is_no_operator(operator: Tenant):
    put_user(operator, Role.VIEWER, f"viewer-{operator.id}@example.com")
    with browser(operator) as client:
        sign_in(client, f"viewer-{operator.id}@example.com")
        assert client.get("/admin", headers=HTML).status_code == 403


def test_signing_out_ends_the_session(operator: Tenant, email: str):
    with browser(operator) as client:
        sign_in(client, email)
        token = client.cookies["lockstep_session"]
        response = client.post("/sign-out")
        assert (response.status_code, response.headers["location"]) == (303, "/sign-in")
        client.cookies.set("lockstep_session", token)
        assert client.get("/admin", headers=HTML).status_code == 303


def test_who_is_no_longer_an_operator_sees_nothing_more(operator: Tenant, email: str):
    with browser(operator) as client:
        sign_in(client, email)
        with Session(operator.deployment.owner) as session, session.begin():
            make_operator(session, operator.id, is_operator=False)
        assert client.get("/admin", headers=HTML).status_code == 403
