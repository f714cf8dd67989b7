"""Folders in which servers may keep their data."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from core.embedded.folder import DataFolder
from core.embedded.placement import find_home
from core.embedded.postgres import make_cluster
from tests.stack import server_folder


@pytest.fixture(scope="module")
def reachable_folder() -> Iterator[Path]:
    """A folder that every user can walk to; pytest's own are closed to all but one."""
    with server_folder() as folder:
        yield folder


@pytest.fixture(scope="module")
def data_folder(reachable_folder: Path) -> Path:
    """A data folder whose empty cluster was made without waiting for the disk."""
    folder = DataFolder.open(reachable_folder / "data")
    make_cluster(find_home(folder.path), durable=False)
    return folder.path


@pytest.fixture(scope="module")
def s3_elsewhere(object_store_settings: dict[str, Any]) -> dict[str, str]:
    """Variables that replace a stack's own S3 server, the slowest to stop, where a test is about something else."""
    return {f"LOCKSTEP_{name.upper()}": str(value) for name, value in object_store_settings.items()}
