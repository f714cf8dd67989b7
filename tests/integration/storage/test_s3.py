"""Files of every size through a real object store."""

from __future__ import annotations

import hashlib
import os
from datetime import timedelta

import httpx
import pytest

from core.config import Settings
from core.errors import StorageUnavailable
from core.storage.s3 import ObjectMissing, ObjectStore


@pytest.fixture(scope="module")
def store(object_store_settings):
    return ObjectStore.from_settings(Settings.model_validate(object_store_settings))


@pytest.mark.parametrize("size", [0, 1000, 20 * 1024 * 1024], ids=["empty", "small", "in parts"])
def test_a_file_comes_back_as_it_was(store, tmp_path, size):
    path, back = tmp_path / "file", tmp_path / "back"
    path.write_bytes(os.urandom(size))
    stored = store.put_file("a/file", path, media_type="application/octet-stream")
    assert (stored.size_bytes, stored.sha256) == (size, hashlib.sha256(path.read_bytes()).hexdigest())
    store.get_file("a/file", back)
    assert back.read_bytes() == path.read_bytes()
    if size:
        assert b"".join(store.read("a/file", first=1, last=size - 1)) == path.read_bytes()[1:]


def test_whoever_has_an_address_writes_exactly_so_many_bytes_and_only_there(store):
    address = store.address_to_put("a/part", size_bytes=5, lifetime=timedelta(minutes=1))
    for wrong in (b"", b"abcd", b"abcdef"):
        assert httpx.put(address, content=wrong, verify=False).is_client_error
    assert httpx.put(address.replace("a/part", "a/other"), content=b"abcde", verify=False).is_client_error
    for key in ("a/part", "a/other"):
        with pytest.raises(ObjectMissing):
            store.get(key)
    assert httpx.put(address, content=b"abcde", verify=False).is_success
    assert store.get("a/part") == b"abcde"


def test_what_is_not_there_is_missing(store, tmp_path):
    with pytest.raises(ObjectMissing):
        store.get_file("nothing", tmp_path / "file")
    with pytest.raises(ObjectMissing):
        store.get("nothing")


def test_a_store_that_does_not_answer_is_unavailable(tmp_path, object_store_settings):
    settings = Settings.model_validate(object_store_settings | {"s3_endpoint": "http://127.0.0.1:9"})
    nowhere, path = ObjectStore.from_settings(settings), tmp_path / "file"
    path.write_bytes(b"x")
    with pytest.raises(StorageUnavailable):
        nowhere.put_file("a", path, media_type="text/plain")
    with pytest.raises(StorageUnavailable):
        nowhere.get_file("a", tmp_path / "back")
