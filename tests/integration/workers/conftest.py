"""A deployment of its own for each test, and an engine process that most of them share."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.deployment import Deployment, deployment, tiny_model
from workers.gpu_child import GpuChild
from workers.supervisor import Supervisor

__all__ = ["child", "deployment", "tiny_model"]


@pytest.fixture(scope="session")  # an engine takes seconds to start
def child() -> Iterator[GpuChild]:
    """An engine process for the tests that do not kill it on purpose (one that dies is replaced)."""
    running = GpuChild(device="cpu")
    yield running
    running.close()


@pytest.fixture
def worker(deployment: Deployment, child: GpuChild) -> Supervisor:
    """A worker that waits for a doorbell."""
    child.ensure_running()
    supervisor = deployment.supervisor(child=child)
    supervisor._become("idle")
    return supervisor
