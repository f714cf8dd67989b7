"""One server, and so one database and bucket, for each module of tests."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from sqlalchemy.orm import Session

from core.config import Settings
from core.tenants.provisioning import make_operator
from tests.serving import Deployment, Tenant, serving


@pytest.fixture(scope="module")
def deployment(stack_settings: Settings) -> Iterator[Deployment]:
    made = Deployment(stack_settings)
    yield made
    made.close()


@pytest.fixture(scope="module")
def url(deployment: Deployment) -> Iterator[str]:
    with serving(deployment.settings) as base_url:
        yield base_url


@pytest.fixture
def acme(deployment: Deployment, url: str) -> Iterator[Tenant]:
    """A tenant that nothing has happened to yet."""
    tenant = Tenant(deployment, url, "acme")
    with tenant.http:
        yield tenant


@pytest.fixture
def rival(deployment: Deployment, url: str) -> Iterator[Tenant]:
    """Another tenant."""
    tenant = Tenant(deployment, url, "rival")
    with tenant.http:
        yield tenant


@pytest.fixture
def operator(deployment: Deployment, url: str) -> Iterator[Tenant]:
    """A tenant whose administrators run the deployment."""
    tenant = Tenant(deployment, url, "operators")
    with Session(deployment.owner) as session, session.begin():
        make_operator(session, tenant.id)
    with tenant.http:
        yield tenant
