"""Users of a tenant, in browsers of their own."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any

import httpx
from sqlalchemy.orm import Session

from core.members import membership, passwords
from core.members.roles import Role
from core.operations.audit import Actor
from tests.serving import Tenant, created

PASSWORD = "correct horse battery"


@cache
def hashed() -> str:
    return passwords.hashed(PASSWORD)


def put_user(tenant: Tenant, role: Role = Role.OWNER, email: str = "olga@example.com") -> str:
    with Session(tenant.deployment.owner) as session, session.begin():
        operator = Actor("lockstepd")
        return membership.put_user(session, operator, tenant.id, email, role=role, name="", password_hash=hashed())


def try_to_sign_in(client: httpx.Client, email: str = "olga@example.com", **body: Any) -> httpx.Response:
    return client.post("/v1/sessions", json={"email": email, "password": PASSWORD} | body)


@contextmanager
def browser(tenant: Tenant) -> Iterator[httpx.Client]:
    """Somebody without a key."""
    with httpx.Client(base_url=tenant.base_url, timeout=20, verify=False) as client:
        yield client


@contextmanager
def signed_in(tenant: Tenant, role: Role = Role.OWNER) -> Iterator[httpx.Client]:
    """A new member in a browser."""
    email = f"{role}-{tenant.id}@example.com"
    put_user(tenant, role, email)
    with browser(tenant) as client:
        created(try_to_sign_in(client, email, tenant=tenant.id))
        yield client


def set_cookie(response: httpx.Response) -> dict[str, str]:
    """The attributes of the cookie that an answer sets, by their names in lower case."""
    pairs = [part.partition("=") for part in re.split(r"; *", response.headers["set-cookie"])]
    return {name.lower(): value for name, _, value in pairs}
