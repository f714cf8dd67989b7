"""Keeping what a job made: the object first, then its row, in the transaction that ends the job."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import structlog
from PIL import Image
from sqlalchemy.orm import Session

from core.errors import StorageUnavailable
from core.ids import new_id
from core.jobs import execution, products
from core.jobs.execution import ClaimedJob, Ending
from core.jobs.products import Product
from core.jobs.states import JobState
from core.storage import keys
from workers import checkpoints
from workers.attempt import Attempt
from workers.protocol import Preview

log = structlog.get_logger()

_SHEET = "image/webp"


def store(
    attempt: Attempt,
    job: ClaimedJob,
    path: Path,
    *,
    purpose: str,
    name: str,
    media_type: str,
    size: tuple[int, int] | None = None,
) -> Product:
    """Store a file that the engine wrote, waiting out a store that does not answer (`Attempt.persist`).

    `size` is a picture's width and height in pixels.
    """
    key = keys.output(job.id, job.token, name)
    stored = attempt.persist(lambda: attempt.store.put_file(key, path, media_type=media_type))
    return Product(new_id("file"), purpose, name, media_type, stored, *(size or ()))


def show(attempt: Attempt, job: ClaimedJob, message: Preview) -> None:
    """Store a preview and tell of it; one that cannot be stored is not shown."""
    path = Path(message.path)
    key = keys.output(job.id, job.token, path.name)
    try:
        stored = attempt.store.put_file(key, path, media_type=_SHEET)
    except StorageUnavailable as error:
        log.warning("preview.not_stored", job=job.id, error=str(error))
        return
    with Image.open(path) as picture:
        width, height = picture.size
    product = Product(new_id("file"), "preview", path.name, _SHEET, stored, width, height)

    def write(session: Session) -> None:
        if execution.report(session, job, preview={"file_id": product.file_id, "step": message.step}):
            products.keep_files(session, job, [product])

    attempt.tell(write)


def succeed(attempt: Attempt, job: ClaimedJob, keep: Callable[[Session], Mapping[str, Any]]) -> None:
    """End a job with the result that ``keep`` returns for what it wrote, unless the job was canceled or lost."""

    def write(session: Session) -> set[str]:
        if not execution.hold(session, [job]):
            return set()
        if attempt.keeper.cancel_requested(job.id):
            return execution.finish(session, [Ending(job.id, job.token, JobState.CANCELED, attempt.gpu_seconds())])
        ending = Ending(job.id, job.token, JobState.SUCCEEDED, attempt.gpu_seconds(), result=keep(session))
        return execution.finish(session, [ending])

    if attempt.commit(write):  # by now nobody else can be going on from it
        checkpoints.forget(attempt, job)
