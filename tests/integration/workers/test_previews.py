"""Pictures that trainings show of themselves, as a worker keeps and tells them."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

from PIL import Image

from tests.integration.workers.scripted import ScriptedChild
from workers import protocol
from workers.engine.pictures import save_sheet


def show_twice(asked: Any) -> list[Any]:
    """Two previews of the training and a failure that nothing can mend."""
    (training,) = asked.trainings
    answers = []
    for step, colour in ((50, "red"), (100, "blue")):
        path = Path(training.scratch_dir) / f"preview-{step:06d}.webp"
        save_sheet([Image.new("RGB", (16, 16), colour)] * 5, path)
        answers.append(protocol.Preview(training.request_id, step, str(path)))
    failed = protocol.Failed(training.request_id, "training-diverged", "The loss is nan.", retryable=False)
    return [*answers, failed, protocol.TrainingsEnded(asked.request_id)]


async def test_previews_of_a_training_are_told_as_they_come_and_stay(deployment):
    job_id = await deployment.train()
    deployment.supervisor(child=ScriptedChild(show_twice)).serve()
    sql = "SELECT data->'preview' FROM events WHERE job_id = :id AND type = 'training.preview' ORDER BY sequence"
    told = deployment.column(sql, id=job_id)
    assert [preview["step"] for preview in told] == [50, 100]
    first = deployment.one("SELECT * FROM files WHERE id = :id", id=told[0]["file_id"])
    assert (first.purpose, first.job_id, first.media_type) == ("preview", job_id, "image/webp")
    assert (first.width, first.height) == Image.open(io.BytesIO(deployment.store.get(first.key))).size == (64, 32)
    assert deployment.job(job_id).state == "failed"
