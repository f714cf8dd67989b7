"""A distillation whose worker is killed twice: it goes on from its checkpoints and ends where an unbroken one ends."""

from __future__ import annotations

import json
import os
import shutil
import signal
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import psutil
import pytest
import torch
from safetensors.torch import load
from sqlalchemy.orm import Session

from core.db.engine import sync_engine
from core.tenants.provisioning import create_key
from lockstep import Lockstep
from tests.chaos.test_survival import running
from tests.deployment import Deployment
from tests.serving import serving
from tests.waiting import until

STEPS = 40
WANTED: dict[str, Any] = {"prompts": ["a cat", "a red dog"], "pairs": 70, "pair_steps": 2, "steps": STEPS, "seed": 3}


@pytest.fixture
def distillable(deployment: Deployment, tiny_model: Path, tmp_path: Path) -> Deployment:
    """A deployment with a tiny model that leaves checkpoints often, and leases that run out soon."""
    folder = tmp_path / "tiny"
    shutil.copytree(tiny_model, folder)
    card = json.loads((folder / "lockstep.json").read_text())
    own = {
        "batch_size": 4,
        "critic_ratio": 2,
        "lr": 1e-3,
        "critic_lr": 1e-3,
        "checkpoint_every": 5,
        "preview_every": 20,
    }
    (folder / "lockstep.json").write_text(json.dumps({**card, "size": 16, "size_multiple": 8, "distillation": own}))
    quick = {"lease_seconds": 4.0, "heartbeat_seconds": 0.5, "models": (str(folder),)}
    deployment.settings = deployment.settings.model_copy(update=quick)
    return deployment


@pytest.fixture
def lockstep(distillable: Deployment) -> Iterator[Lockstep]:
    owner = sync_engine(distillable.settings.owner_dsn)
    with Session(owner) as session, session.begin():
        key = create_key(session, distillable.tenant_id, "test", frozenset({"distill", "generate", "read"}))
    owner.dispose()
    with serving(distillable.settings) as url, Lockstep(base_url=url, api_key=key) as client:
        yield client


def kill_when(worker_pid: int | None, is_time: Callable[[], bool]) -> None:
    assert worker_pid is not None
    until(is_time, seconds=150)
    family = psutil.Process(worker_pid).children(recursive=True)
    os.kill(worker_pid, signal.SIGKILL)
    until(lambda: not any(child.is_running() for child in family))


def test_a_distillation_that_is_killed_twice_ends_as_an_unbroken_one(distillable, lockstep, tmp_path):
    settings = distillable.settings
    with running("workers.maintain", settings, tmp_path):
        until(lambda: any(model.name == "tiny" and model.ready for model in lockstep.models.list()))
        job = lockstep.distillations.create(name="broken", teacher="tiny", **WANTED)

        def reached(step: int) -> bool:
            return bool((distillable.job(job.id).checkpoint or {}).get("step", 0) >= step)

        for life, step in enumerate((10, 25)):
            with running("workers.run", settings, tmp_path, name=f"life-{life}") as worker:
                kill_when(worker.pid, partial(reached, step))
        with running("workers.run", settings, tmp_path, name="last"):
            student = lockstep.distillations.wait(job.id, timeout=120).result
            steady = lockstep.distillations.create(name="steady", teacher="tiny", **WANTED)
            unbroken = lockstep.distillations.wait(steady.id, timeout=120).result
            drawn = lockstep.generations.create(prompt="a cat", model="broken", seed=1)
            picture = lockstep.generations.wait(drawn.id, timeout=60).result.images[0]
    assert distillable.outcomes(job.id) == ["lost", "lost", "succeeded"]
    steps = [
        event.data["step"] for event in lockstep.events.list(job=job.id) if event.type == "distillation.checkpoint"
    ]
    assert min(steps) == 5
    assert len(set(steps)) == STEPS // 5 - 1  # none at the end
    first, second = (load(lockstep.files.content(made.file_id)) for made in (student, unbroken))
    assert all(torch.equal(first[name], second[name]) for name in first | second)
    assert lockstep.files.content(picture.file_id).startswith(b"\x89PNG")
    assert drawn.model_extra is not None
    assert drawn.model_extra["params"]["steps"] == 1
