"""A deployment in miniature that is traced: the API, a worker with a real engine, a sender, and a collector."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import httpx
import pytest
from sqlalchemy.orm import Session

from core.db.engine import sync_engine
from core.tenants.keys import SCOPES
from core.tenants.provisioning import create_key
from core.tracing import open_tracing
from tests.deployment import Deployment, deployment, tiny_model
from tests.serving import serving
from tests.tracing.collector import Collector, collecting
from workers.gpu_child import GpuChild
from workers.maintain.sender import open_sender

__all__ = ["deployment", "tiny_model"]


@pytest.fixture(scope="module")
def child() -> Iterator[GpuChild]:
    running = GpuChild(device="cpu")
    yield running
    running.close()


@pytest.fixture
def collector() -> Iterator[Collector]:
    with collecting() as made:
        yield made


class Traced:
    """One generation after the other, by a customer of the API, with everybody's spans sent before it is looked at."""

    def __init__(self, deployment: Deployment, child: GpuChild, endpoint: str | None) -> None:
        self.deployment = deployment
        self.settings = deployment.settings.model_copy(update={"otlp_endpoint": endpoint})
        self._child = child
        owner = sync_engine(deployment.settings.owner_dsn)
        with Session(owner) as session, session.begin():
            self._key = create_key(session, deployment.tenant_id, "test", SCOPES)
        owner.dispose()

    @contextmanager
    def api(self) -> Iterator[httpx.Client]:
        """The API; what it traced is sent at the end."""
        headers = {"Authorization": f"Bearer {self._key}"}
        with serving(self.settings) as url, httpx.Client(base_url=url, headers=headers, timeout=20) as client:
            yield client

    def work(self) -> None:
        """Have a worker do all that waits, and leave; its engine stays."""
        worker = self.deployment.supervisor(
            child=self._child, tracing=open_tracing("worker", self.settings.otlp_endpoint)
        )
        self._child.ensure_running()
        worker._become("idle")
        assert worker.serve() > 0
        worker._tracing.close()

    async def send(self) -> None:
        """Have the maintainer's sender send what is due."""
        async with open_sender(self.settings) as sender:
            assert (await sender.run_once()).started > 0


@pytest.fixture
def traced(deployment: Deployment, child: GpuChild, collector: Collector) -> Traced:
    return Traced(deployment, child, collector.url)


@pytest.fixture
def untraced(deployment: Deployment, child: GpuChild) -> Traced:
    return Traced(deployment, child, None)
