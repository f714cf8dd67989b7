"""Fixtures that every test may ask for; see ``tests/stack.py`` for the servers behind them."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from sqlalchemy.engine import URL

from core.config import Settings
from tests.stack import TestServers, run_servers


def pytest_configure() -> None:
    """Forget the deployment and the collector that the shell may point at: tests run on their own servers only."""
    for name in [name for name in os.environ if name.startswith(("LOCKSTEP_", "OTEL_"))]:
        del os.environ[name]


@pytest.fixture(scope="session")
def servers() -> Iterator[TestServers]:
    """Postgres, Valkey and SeaweedFS, each started at its first use and ended with the run."""
    with run_servers() as running:
        yield running


@pytest.fixture(scope="session")
def new_database(servers: TestServers) -> Callable[[], URL]:
    """Makes one more migrated, empty database."""
    return servers.new_database


@pytest.fixture(scope="module")
def postgres_url(servers: TestServers) -> Iterator[URL]:
    """A migrated database for this module, as the role that owns the tables."""
    url = servers.new_database()
    yield url
    servers.drop_database(url)


@pytest.fixture(scope="module")
def broker_url(servers: TestServers) -> str:
    """The Redis-protocol broker, emptied for this module."""
    return servers.emptied_broker()


@pytest.fixture(scope="module")
def object_store_settings(servers: TestServers) -> dict[str, Any]:
    """The ``s3_...`` settings of a bucket for this module."""
    return servers.new_bucket()


@pytest.fixture(scope="module")
def stack_settings(
    servers: TestServers, postgres_url: URL, broker_url: str, object_store_settings: dict[str, Any]
) -> Settings:
    """Settings of a deployment on this module's database, broker and bucket."""
    return servers.settings(postgres_url, broker_url, object_store_settings)
