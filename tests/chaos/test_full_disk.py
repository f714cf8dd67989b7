"""What a full disk leaves behind in the object store, and that it is mended without anybody."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from core.config import Settings
from core.embedded.seaweed import SeaweedFS
from core.embedded.supervisor import Supervisor
from core.errors import StorageUnavailable
from core.storage.s3 import ObjectStore
from tests.chaos.disks import can_mount, small_disk
from tests.waiting import until


@pytest.mark.skipif(not can_mount(), reason="a small disk cannot be mounted here")
def test_a_store_whose_disk_was_full_stores_again_once_there_is_room(tmp_path: Path):
    with small_disk(tmp_path / "disk", tmp_path / "image", megabytes=96) as disk:
        server = SeaweedFS(disk.path / "s3", access_key="key", secret_key="secret-secret", log=tmp_path / "log")
        supervisor = Supervisor(report=lambda _: None, clock=time.monotonic)
        supervisor.start(server)
        store = ObjectStore.from_settings(Settings.model_validate(dict(server.settings())))
        store.ensure_bucket()
        disk.fill()
        with pytest.raises(StorageUnavailable):
            _fill_up(store)
        assert server.is_well()  # no start would help it now
        disk.empty()
        until(lambda: _stores(supervisor, store), seconds=60)
        supervisor.stop()


def _fill_up(store: ObjectStore) -> None:
    for number in range(2000):
        store.put(f"tenants/t/files/{number}", b"x" * 4096, media_type="image/png")


def _stores(supervisor: Supervisor, store: ObjectStore) -> bool:
    supervisor.watch_once()
    try:
        store.put("tenants/t/files/after", b"x" * 4096, media_type="image/png")
    except StorageUnavailable:
        return False
    return store.get("tenants/t/files/after") == b"x" * 4096
