"""``lockstepd admin check``, against a database and a store."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import text
from typer.testing import CliRunner

from core.cli import app
from core.config import Settings
from core.files.models import File
from core.invariants import checks
from core.storage.s3 import ObjectStore
from tests.integration.invariants.conftest import History


@pytest.fixture
def settings(history: History, object_store_settings: dict[str, Any], tmp_path: Path) -> Settings:
    url = history.queue.owners.url.render_as_string()
    return Settings.model_validate({**object_store_settings, "database_url": url, "data_dir": tmp_path})


def check(settings: Settings, *arguments: str) -> tuple[int, str]:
    """The exit code and what was printed."""
    done = CliRunner().invoke(app, ["admin", "check", *arguments], env=settings.environment())
    return done.exit_code, done.stdout


def keep_files(history: History, store: ObjectStore, *names: str) -> None:
    """Replace all files of the history by stored ones."""
    stored = [store.put(f"tenants/{name}", b"bytes", media_type="image/png") for name in names]
    with history.queue.sessions.begin() as session:
        session.execute(text("DELETE FROM files"))
        session.add_all(
            File(
                id=f"file_{name}", tenant_id=history.tenant_id, purpose="picture", name="x", key=made.key,
                media_type="image/png", size_bytes=made.size_bytes, sha256=made.sha256,
            )
            for name, made in zip(names, stored, strict=True)
        )  # fmt: skip


def test_it_prints_what_holds(settings: Settings):
    code, told = check(settings)
    assert (code, told.count("holds "), told.count("BROKEN")) == (0, len(checks.INVARIANTS), 0)


def test_it_reads_stored_files_back(settings: Settings, history: History):
    store = ObjectStore.from_settings(settings)
    keep_files(history, store, "kept", "changed", "lost")
    assert check(settings, "--objects", "10")[0] == 0
    store.put("tenants/changed", b"other", media_type="image/png")
    store.delete("tenants/lost")
    code, told = check(settings, "--objects", "10")
    assert code == 1
    assert [name for name in ("kept", "changed", "lost") if f"file_{name}" in told] == ["changed", "lost"]


def test_it_prints_what_is_broken_and_fails(settings: Settings, history: History):
    with history.queue.owners.begin() as connection:
        connection.execute(text("DELETE FROM ready WHERE job_id = :id"), {"id": history.waiting})
    code, told = check(settings)
    assert (code, told.count("BROKEN")) == (1, 1)
    assert history.waiting in told
