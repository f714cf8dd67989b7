"""One database and bucket for each module of tests."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from core.config import Settings
from tests.serving import Deployment


@pytest.fixture(scope="module")
def deployment(stack_settings: Settings) -> Iterator[Deployment]:
    made = Deployment(stack_settings)
    yield made
    made.close()
