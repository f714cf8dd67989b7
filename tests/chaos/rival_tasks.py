"""The rival: the same drawing as a plain Celery task, with the settings that its documentation recommends for safety.

``CHAOS_RIVAL`` in the environment is a JSON object with what the task needs.
"""

from __future__ import annotations

import io
import json
import os
from functools import cache
from pathlib import Path
from typing import Any

from celery import Celery
from PIL import Image
from sqlalchemy import create_engine, text

from core.config import Settings
from core.storage.s3 import ObjectStore

# Beyond the longest task by far, and so that a lost worker's task comes back within the patience of the run; Celery's
# own default of an hour would bring none of them back in time.
VISIBILITY_SECONDS = 30
QUEUE = "drawings"


def make_app(broker_url: str) -> Celery:
    """Celery as careful users set it up."""
    app = Celery("rival", set_as_current=False)
    app.conf.update(
        broker_url=broker_url,
        task_default_queue=QUEUE,
        task_ignore_result=True,
        task_acks_late=True,
        task_reject_on_worker_lost=True,
        worker_prefetch_multiplier=1,
        broker_connection_retry_on_startup=True,
        broker_connection_max_retries=None,
        broker_transport_options={
            "visibility_timeout": VISIBILITY_SECONDS,
            "unacked_restore_interval": 1,
            "unacked_restore_throttle": 5,
            "socket_timeout": 10,
            "socket_connect_timeout": 3,
            "health_check_interval": 10,
        },
    )
    return app


TASK = "draw"
_given: dict[str, Any] = json.loads(os.environ.get("CHAOS_RIVAL", '{"broker_url": "memory://"}'))
app = make_app(_given["broker_url"])


@cache
def _model() -> Any:
    import torch

    from workers.engine.storybook.drawing import load_model

    torch.set_num_threads(1)
    return load_model(Path(_given["model"]))


@cache
def _engine() -> Any:
    return create_engine(_given["database_url"], pool_pre_ping=True, connect_args={"connect_timeout": 5})


@cache
def _store() -> ObjectStore:
    return ObjectStore.from_settings(Settings.model_validate(_given["store"]))


@app.task(name=TASK, autoretry_for=(Exception,), max_retries=7, default_retry_delay=2)
def draw(job_id: str, wanted: dict[str, Any]) -> None:
    """Draw, store, and write down that it is done: a row that shows the result and charges for it."""
    from workers.engine.generation import GenerationRequest
    from workers.engine.storybook.drawing import draw_requests

    side, steps = wanted["size"], wanted["steps"]
    requests = [
        GenerationRequest(wanted["prompt"], wanted["seed"] + k, steps=steps, guidance=3, width=side, height=side)
        for k in range(wanted["n"])
    ]
    for number, pixels in enumerate(draw_requests(_model(), requests)):
        encoded = io.BytesIO()
        Image.fromarray(pixels).save(encoded, "PNG")
        _store().put(f"rival/{job_id}/{number}.png", encoded.getvalue(), media_type="image/png")
    with _engine().begin() as connection:
        connection.execute(text("INSERT INTO rival_results (job_id) VALUES (:id)"), {"id": job_id})
