"""Checkpoints of long work: stored as they come, fetched by the attempt that goes on."""

from __future__ import annotations

import contextlib
from pathlib import Path

import structlog

from core.errors import StorageUnavailable
from core.jobs import execution
from core.jobs.execution import ClaimedJob
from core.storage import keys
from core.storage.s3 import ObjectMissing
from workers.attempt import Attempt
from workers.protocol import Checkpoint, Stopped

log = structlog.get_logger()


def fetch(attempt: Attempt, job: ClaimedJob) -> Path | None:
    """A local copy of what an earlier attempt left; None where there is nothing, and the work starts over."""
    if job.checkpoint is None:
        return None
    attempt.checkpoints[job.id] = job.checkpoint["key"]
    path = attempt.folder(job) / "resume.safetensors"
    try:
        attempt.store.get_file(job.checkpoint["key"], path)
    except ObjectMissing:
        return None
    return path


def keep(attempt: Attempt, job: ClaimedJob, message: Checkpoint) -> None:
    """Store a checkpoint in place of the last one; one that cannot be stored is no reason to wait.

    It then costs steps, should this attempt end. The engine's copy goes: checkpoints are as large as three models.
    """
    key = keys.checkpoint(job.id, job.token, message.step)
    try:
        _store(attempt, key, message.path)
    except StorageUnavailable as error:
        log.warning("checkpoint.not_stored", job=job.id, error=str(error))
        return
    kept = {"key": key, "step": message.step}
    if attempt.tell(lambda session: execution.report(session, job, checkpoint=kept)):
        Path(message.path).unlink()
        forget(attempt, job)
        attempt.checkpoints[job.id] = key


def give_back(attempt: Attempt, job: ClaimedJob, stopped: Stopped) -> None:
    """Return a job whose work was stopped, with the checkpoint that the engine left, alone of its batch.

    A store that does not answer is waited for, unless the worker leaves.
    """
    path, key = stopped.checkpoint_path, keys.checkpoint(job.id, job.token, stopped.step)
    # The engine may have stopped at the very step of its last checkpoint, which is stored, and so not there any more.
    if path is None or key == attempt.checkpoints.get(job.id) or not attempt.is_wanted(job):
        attempt.stop(job)
        return
    try:
        attempt.persist(lambda: _store(attempt, key, path))
    except StorageUnavailable as error:
        log.warning("checkpoint.not_stored", job=job.id, error=str(error))
        attempt.stop(job)
        return
    if attempt.stop(job, checkpoint={"key": key, "step": stopped.step}):  # else it is somebody else's to go on from
        forget(attempt, job)


def forget(attempt: Attempt, job: ClaimedJob) -> None:
    """Remove the last checkpoint, which a later one or the result has replaced."""
    key = attempt.checkpoints.pop(job.id, None)
    if key is not None:
        with contextlib.suppress(StorageUnavailable):
            attempt.store.delete(key)


def _store(attempt: Attempt, key: str, path: str) -> None:
    attempt.store.put_file(key, Path(path), media_type="application/octet-stream")
