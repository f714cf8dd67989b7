"""What a worker fetches before its engine starts, and what it keeps of it."""

from __future__ import annotations

from pathlib import Path

import pytest
from sqlalchemy import text

from workers import inputs
from workers.inputs import InputMissing, ModelPlace, fetch_base, fetch_files, fetch_model


def student(deployment, content: bytes | None) -> str:
    """A student of the deployment's model, with that file; without one, a distillation is yet to make it."""
    file_id = None if content is None else deployment.upload(content, purpose="student")
    model_id = f"mdl_{len(deployment.column('SELECT id FROM models'))}"
    with deployment.sessions.begin() as session:
        session.execute(
            text(
                "INSERT INTO models (id, tenant_id, name, kind, family, teacher_id, file_id, facts) "
                "VALUES (:id, :tenant, :id, 'student', 'f', :teacher, :file, '{}')"
            ),
            {"id": model_id, "tenant": deployment.tenant_id, "teacher": deployment.model_id, "file": file_id},
        )
    return model_id


def fetch(deployment, model_id: str, folder: Path) -> ModelPlace:
    return fetch_model(deployment.sessions, deployment.store, model_id, folder)


def test_a_base_model_lies_where_it_was_registered(deployment, tiny_model, tmp_path):
    place = ModelPlace("tiny", str(tiny_model))
    assert fetch(deployment, deployment.model_id, tmp_path) == place
    assert fetch_base(deployment.sessions, deployment.model_id) == place.location


def test_a_student_lies_where_its_teacher_does_with_a_file_of_its_own(deployment, tiny_model, tmp_path):
    place = fetch(deployment, student(deployment, b"student"), tmp_path / "students")
    assert place.location == str(tiny_model)
    assert place.student is not None
    assert place.student.read_bytes() == b"student"


def test_a_student_that_was_never_made_and_a_model_that_is_gone_are_missing(deployment, tmp_path):
    unmade = student(deployment, None)
    for model_id in (unmade, "mdl_gone"):
        with pytest.raises(InputMissing):
            fetch(deployment, model_id, tmp_path)
        with pytest.raises(InputMissing):
            fetch_base(deployment.sessions, model_id)
    with pytest.raises(InputMissing):  # made, but it is its teacher that concepts are learned on
        fetch_base(deployment.sessions, student(deployment, b"student"))


def test_only_the_students_that_were_used_last_stay_on_disk(deployment, tmp_path, monkeypatch):
    monkeypatch.setattr(inputs, "_CACHED_STUDENTS", 2)
    ids = [student(deployment, content) for content in (b"0", b"1", b"2")]
    for number in (0, 1, 0, 2):
        fetch(deployment, ids[number], tmp_path)
    assert sorted(path.read_bytes() for path in tmp_path.iterdir()) == [b"0", b"2"]


def test_a_file_that_was_changed_in_storage_is_left_out(deployment, tmp_path):
    file_id = deployment.upload(b"as it was", purpose="concept")
    key = deployment.one("SELECT key FROM files WHERE id = :id", id=file_id).key
    deployment.store.put(key, b"as it is not", media_type="text/plain")
    assert fetch_files(deployment.sessions, deployment.store, [file_id, "file_gone"], tmp_path) == {}
