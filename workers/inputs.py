"""Fetching what a batch works from: model locations from Postgres, objects from storage, each file once."""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from sqlalchemy.orm import Session, sessionmaker

from core.catalog import statements as catalog
from core.catalog.models import Model
from core.jobs import statements
from core.jobs.execution import ClaimedJob
from core.jobs.retry import JobError
from core.storage.s3 import ObjectMissing, ObjectStore
from core.tenants import statements as tenants
from core.tenants.safety import SafetyPolicy
from workers.attempt import Attempt

_CACHED_STUDENTS = 8


class InputMissing(Exception):
    """A file or model that the job names is gone; another attempt cannot help."""


def require(wanted: Iterable[str], present: Mapping[str, Path]) -> None:
    """Raise InputMissing unless every wanted file is there."""
    if missing := sorted(set(wanted) - present.keys()):
        raise InputMissing(f"Files that the job needs are gone or were changed: {', '.join(missing)}.")


@dataclass(frozen=True)
class ModelPlace:
    """Where a model lies; of a student that a job made, its teacher's place and its own file."""

    name: str
    location: str  # folder or hub id
    student: Path | None = None


def fetch_base(sessions: sessionmaker[Session], model_id: str) -> str:
    """Where a model with a folder of its own lies; raises InputMissing."""
    with sessions() as session:
        return _location(_registered(session, model_id))


def fetch_model(sessions: sessionmaker[Session], store: ObjectStore, model_id: str, folder: Path) -> ModelPlace:
    """Where any model lies, a student's file fetched into the cache ``folder``; raises InputMissing."""
    with sessions() as session:
        model = _registered(session, model_id)
        if model.file_id is None or model.teacher_id is None:
            return ModelPlace(model.name, _location(model))
        teacher = _location(_registered(session, model.teacher_id))
        name, file_id = model.name, model.file_id
    paths = fetch_files(sessions, store, [file_id], folder)
    require([file_id], paths)
    _forget_oldest(folder, used=paths[file_id])
    return ModelPlace(name, teacher, paths[file_id])


def _registered(session: Session, model_id: str) -> Model:
    model = session.scalar(catalog.model_named(model_id))
    if model is None:
        raise InputMissing(f"Model {model_id} is no longer registered.")
    return model


def _location(model: Model) -> str:
    if model.location is None:
        raise InputMissing(f"Model {model.id} is no longer registered.")
    return model.location


def fetch_policies(sessions: sessionmaker[Session], tenant_ids: Iterable[str]) -> dict[str, SafetyPolicy]:
    """How the pictures of these tenants are judged at this moment."""
    with sessions() as session:
        rows = session.execute(tenants.safety_policies(tenant_ids)).all()
    return {row.id: SafetyPolicy(row.safety) for row in rows}


def fetch_files(
    sessions: sessionmaker[Session], store: ObjectStore, file_ids: Collection[str], folder: Path
) -> dict[str, Path]:
    """Local copies of stored files by id; what was deleted or changed meanwhile is left out.

    ``folder`` is a cache: a file lies there under its content hash, so a concept or student is fetched once per worker.
    """
    if not file_ids:
        return {}
    with sessions() as session:
        rows = session.execute(statements.input_files(file_ids)).all()
    folder.mkdir(parents=True, exist_ok=True)
    paths: dict[str, Path] = {}
    for row in rows:
        path = folder / row.sha256
        if not path.exists():
            partial = path.with_suffix(".partial")
            try:
                store.get_file(row.key, partial)
            except ObjectMissing:
                continue
            if _sha256(partial) != row.sha256:
                continue
            partial.rename(path)
        paths[row.id] = path
    return paths


def fetch_for_each(
    attempt: Attempt, needed: Callable[[ClaimedJob], Collection[str]], folder: Path
) -> Iterator[tuple[ClaimedJob, Mapping[str, Path]]]:
    """Fetch what a batch needs; yield every job whose files are still there, with all paths. The others fail alone."""
    wanted = {file_id for job in attempt.jobs for file_id in needed(job)}
    paths = fetch_files(attempt.sessions, attempt.store, wanted, folder)
    for job in attempt.jobs:
        try:
            require(needed(job), paths)
        except InputMissing as error:
            attempt.end(job, JobError("input-missing", str(error), retryable=False))
        else:
            yield job, paths


def _forget_oldest(folder: Path, *, used: Path) -> None:
    """Keep the students that were used last: each is as large as half a model, and tenants make many."""
    now = time.time_ns()  # the file system's own clock moves in steps, within which several may be used
    os.utime(used, ns=(now, now))
    by_use = sorted(folder.iterdir(), key=lambda path: path.stat().st_mtime_ns)
    for path in by_use[:-_CACHED_STUDENTS]:
        path.unlink()


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
