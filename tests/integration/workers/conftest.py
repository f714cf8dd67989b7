"""A deployment of its own for each test, and an engine process that most of them share."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.deployment import deployment, tiny_model
from workers.gpu_child import GpuChild

__all__ = ["child", "deployment", "tiny_model"]


@pytest.fixture(scope="module")
def child() -> Iterator[GpuChild]:
    """An engine process for the tests that do not kill it on purpose (one that dies is replaced)."""
    running = GpuChild(device="cpu")
    yield running
    running.close()
