"""Concept files through the client."""

from __future__ import annotations

import json
from pathlib import Path

import httpx

from lockstep.resources import Concepts
from tests.unit.sdk.server import ScriptedServer

NOW = "2026-01-01T00:00:00Z"
FILE = {
    "id": "file_1",
    "purpose": "concept_upload",
    "name": "tom-v1.safetensors",
    "media_type": "application/octet-stream",
    "size_bytes": 5,
    "sha256": "0" * 64,
    "created_at": NOW,
}
CONCEPT = {"id": "cpt_1", "name": "tom", "superclass": "cat", "base_model": "storybook", "created_at": NOW}


def test_a_file_is_uploaded_for_its_purpose_and_then_imported(tmp_path: Path):
    server = ScriptedServer(httpx.Response(201, json=FILE), httpx.Response(201, json=CONCEPT | {"latest_version": 2}))
    path = tmp_path / "tom-v1.safetensors"
    path.write_bytes(b"bytes")
    concept = Concepts(server.transport()).import_file(path, concept="tom", idempotency_key="order-17")
    assert (concept.id, concept.latest_version) == ("cpt_1", 2)
    upload, imported = server.requests
    assert (upload.url.path, imported.url.path) == ("/v1/files", "/v1/concepts/import")
    for part in (b'name="purpose"\r\n\r\nconcept_upload', b'filename="tom-v1.safetensors"', b"\r\n\r\nbytes\r\n"):
        assert part in upload.content
    assert json.loads(imported.content) == {"file": "file_1", "concept": "tom"}
    assert imported.headers["idempotency-key"] == "order-17"


def test_a_version_is_asked_for_by_its_number():
    server = ScriptedServer(httpx.Response(200, content=b"bytes"))
    assert Concepts(server.transport()).download("tom", version=3) == b"bytes"
    assert str(server.requests[0].url) == "http://server/v1/concepts/tom/content?version=3"
