"""Fetching what a batch works from: model locations from Postgres, objects from storage, each file once."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from pathlib import Path

from sqlalchemy.orm import Session, sessionmaker

from core.catalog import statements as catalog
from core.jobs import statements
from core.storage.s3 import ObjectMissing, ObjectStore


class InputMissing(Exception):
    """A file or model that the job names is gone; another attempt cannot help."""


def require(wanted: Iterable[str], present: Mapping[str, Path]) -> None:
    """Raise InputMissing unless every wanted file is there."""
    if missing := sorted(set(wanted) - present.keys()):
        raise InputMissing(f"Files that the job needs are gone or were changed: {', '.join(missing)}.")


def fetch_model(sessions: sessionmaker[Session], model_id: str) -> str:
    """Where the model lies; raises InputMissing."""
    with sessions() as session:
        model = session.scalar(catalog.model_named(model_id))
    if model is None:
        raise InputMissing(f"Model {model_id} is no longer registered.")
    return model.location


def fetch_files(
    sessions: sessionmaker[Session], store: ObjectStore, file_ids: Iterable[str], folder: Path
) -> dict[str, Path]:
    """Local copies of stored files by id; what was deleted or changed meanwhile is left out.

    ``folder`` is a cache: a file lies there under its content hash, so concepts are fetched once per worker.
    """
    with sessions() as session:
        rows = session.execute(statements.input_files(file_ids)).all()
    folder.mkdir(parents=True, exist_ok=True)
    paths: dict[str, Path] = {}
    for row in rows:
        path = folder / row.sha256
        if not path.exists():
            try:
                data = store.get(row.key)
            except ObjectMissing:
                continue
            if hashlib.sha256(data).hexdigest() != row.sha256:
                continue
            partial = path.with_suffix(".partial")
            partial.write_bytes(data)
            partial.rename(path)
        paths[row.id] = path
    return paths
