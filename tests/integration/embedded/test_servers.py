"""Valkey and SeaweedFS alone: they keep what they were given, and keep others out."""

from __future__ import annotations

import os
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest
import redis

from core.config import Settings
from core.embedded.folder import DataFolder
from core.embedded.process import Process
from core.embedded.seaweed import SeaweedFS
from core.embedded.stack import make_seaweedfs, make_valkey
from core.embedded.valkey import Valkey
from core.storage.s3 import ObjectStore


@pytest.fixture(scope="module")
def folder(reachable_folder: Path) -> DataFolder:
    return DataFolder.open(reachable_folder / "data")


@pytest.fixture(scope="module")
def valkey(folder: DataFolder) -> Iterator[Valkey]:
    server = make_valkey(folder)
    server.start()
    yield server
    server.stop()


@pytest.fixture(scope="module")
def seaweed(folder: DataFolder) -> Iterator[SeaweedFS]:
    server = make_seaweedfs(folder)
    server.start()
    yield server
    server.process.kill()


def _store(server: SeaweedFS) -> ObjectStore:
    return ObjectStore.from_settings(Settings.model_validate(server.settings()))


def _listening_addresses(process: Process) -> set[str]:
    """The addresses on which a process listens, as the kernel writes them: the bytes of IPv4 in reverse, in hex."""
    sockets = set()
    for file in Path(f"/proc/{process.pid}/fd").iterdir():
        with suppress(FileNotFoundError):
            sockets.add(os.readlink(file))
    rows = [row.split() for row in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    rows += [row.split() for row in Path("/proc/net/tcp6").read_text().splitlines()[1:]]
    return {row[1].partition(":")[0] for row in rows if row[3] == "0A" and f"socket:[{row[9]}]" in sockets}


def test_a_killed_broker_has_every_answered_write_when_it_is_back_under_the_same_url(valkey: Valkey) -> None:
    url = valkey.url
    with redis.Redis.from_url(url) as client:
        client.set("doorbell", "rung")
    valkey.process.kill()
    valkey.start()
    assert valkey.url == url
    with redis.Redis.from_url(url) as client:
        assert client.get("doorbell") == b"rung"


def test_the_broker_refuses_a_write_it_has_no_room_for_instead_of_forgetting_another(valkey: Valkey) -> None:
    with redis.Redis.from_url(valkey.url) as client:
        assert client.config_get("maxmemory-policy") == {"maxmemory-policy": "noeviction"}


def test_the_broker_answers_nobody_without_its_password(valkey: Valkey) -> None:
    url = f"redis://127.0.0.1:{valkey.url.rpartition(':')[2]}"
    with redis.Redis.from_url(url) as client, pytest.raises(redis.AuthenticationError):
        client.ping()


def test_a_killed_object_store_has_its_objects_when_it_is_back_under_the_same_endpoint(seaweed: SeaweedFS) -> None:
    endpoint, store = seaweed.endpoint, _store(seaweed)
    store.ensure_bucket()
    store.put("kept", b"content" * 1000, media_type="text/plain")
    seaweed.process.kill()
    seaweed.start()
    assert seaweed.endpoint == endpoint
    assert _store(seaweed).get("kept") == b"content" * 1000


def test_the_object_store_answers_nobody_without_a_signature(seaweed: SeaweedFS) -> None:
    _store(seaweed).ensure_bucket()
    with pytest.raises(urllib.error.HTTPError, match="403"):
        urllib.request.urlopen(f"{seaweed.endpoint}/lockstep/kept")


def test_servers_listen_on_the_loopback_interface_only(valkey: Valkey, seaweed: SeaweedFS) -> None:
    assert _listening_addresses(valkey.process) == {"0100007F"}
    assert _listening_addresses(seaweed.process) == {"0100007F"}
