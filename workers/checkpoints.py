"""Checkpoints of long work: stored as they come, fetched by the attempt that goes on."""

from __future__ import annotations

from pathlib import Path

import structlog

from core.errors import StorageUnavailable
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
    path = attempt.scratch / "resume.safetensors"
    try:
        attempt.store.get_file(job.checkpoint["key"], path)
    except ObjectMissing:
        return None
    return path


def keep(attempt: Attempt, job: ClaimedJob, message: Checkpoint) -> None:
    """Store a checkpoint; one that cannot be stored costs steps, should this attempt end, and is no reason to wait."""
    key = keys.checkpoint(job.id, job.token, message.step)
    try:
        attempt.store.put_file(key, Path(message.path), media_type="application/octet-stream")
    except StorageUnavailable as error:
        log.warning("checkpoint.not_stored", job=job.id, error=str(error))
    else:
        attempt.report(checkpoint={"key": key, "step": message.step})


def give_back(attempt: Attempt, job: ClaimedJob, stopped: Stopped) -> None:
    """Return a job whose work was stopped, with the checkpoint that the engine left."""
    if stopped.checkpoint_path is not None:
        keep(attempt, job, Checkpoint(stopped.request_id, stopped.step, stopped.checkpoint_path))
    attempt.stop()
