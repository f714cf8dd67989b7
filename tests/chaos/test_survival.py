"""Parts that are killed, emptied or absent, as real processes: every job still ends once."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from functools import partial
from pathlib import Path

import psutil
import pytest
import redis

from core.config import Settings, child_environment
from core.embedded.process import Process
from core.embedded.seaweed import SeaweedFS
from core.embedded.valkey import Valkey
from tests.deployment import Deployment
from tests.waiting import until


@contextmanager
def running(module: str, settings: Settings, logs: Path, *, name: str | None = None) -> Iterator[Process]:
    """A part of Lockstep as ``lockstepd up`` starts it."""
    process = Process(
        name=name or module,
        command=(sys.executable, "-m", module),
        log=logs / f"{name or module}.log",
        environment=child_environment(settings),
        patience=timedelta(seconds=20),
    )
    process.start()
    try:
        yield process
    finally:
        process.stop()


@pytest.fixture
def quick(deployment: Deployment, tiny_model: Path) -> Deployment:
    """A deployment whose leases run out soon, so that nothing waits long for the dead."""
    deployment.settings = deployment.settings.model_copy(
        update={"lease_seconds": 4.0, "heartbeat_seconds": 0.5, "models": (str(tiny_model),)}
    )
    return deployment


def states(deployment: Deployment, ids: list[str]) -> set[str]:
    return set(deployment.column("SELECT DISTINCT state FROM jobs WHERE id = ANY (:ids)", ids=ids))


async def test_killing_the_worker_in_mid_generation_costs_a_lease_and_the_picture_is_drawn_once(quick, tmp_path):
    job_id = await quick.generate(steps=200, n=16)
    with running("workers.maintain", quick.settings, tmp_path):
        with running("workers.run", quick.settings, tmp_path, name="first") as first:
            until(lambda: (quick.job(job_id).progress or {}).get("step", 0) > 0)
            assert first.pid is not None
            family = psutil.Process(first.pid).children(recursive=True)
            os.kill(first.pid, signal.SIGKILL)
            until(lambda: not any(child.is_running() for child in family))  # the engine leaves with its supervisor
        with running("workers.run", quick.settings, tmp_path, name="second"):
            until(lambda: quick.job(job_id).state == "succeeded", seconds=120)
    assert quick.outcomes(job_id) == ["lost", "succeeded"]
    assert len(quick.column("SELECT id FROM files WHERE job_id = :id", id=job_id)) == 16
    told = quick.column("SELECT type FROM events WHERE job_id = :id ORDER BY sequence", id=job_id)
    assert told.count("generation.succeeded") == 1


async def test_jobs_start_by_their_doorbell_and_none_is_lost_with_a_broker_that_is_emptied_or_down(quick, tmp_path):
    broker = Valkey(tmp_path / "valkey", password="secret", log=tmp_path / "valkey.log")
    broker.start()
    quick.settings = quick.settings.model_copy(update={"broker_url": broker.url})
    try:
        with running("workers.maintain", quick.settings, tmp_path), running("workers.run", quick.settings, tmp_path):
            asleep = partial(until, lambda: quick.column("SELECT state FROM workers") == ["idle"])
            asleep()
            ids = [await quick.generate() for _ in range(3)]
            until(lambda: states(quick, ids) == {"succeeded"})

            many = [await quick.generate(width=16 + 8 * (number % 2), steps=20) for number in range(20)]
            with redis.Redis.from_url(broker.url) as client:
                client.flushall()
            until(lambda: states(quick, many) == {"succeeded"}, seconds=120)

            asleep()
            broker.process.kill()
            alone = await quick.generate()
            broker.start()
            until(lambda: quick.job(alone).state == "succeeded", seconds=90)
    finally:
        broker.process.kill()
    assert all(quick.outcomes(job_id) == ["succeeded"] for job_id in [*ids, *many, alone])


async def test_a_store_that_is_down_at_the_finish_pauses_the_finish_and_not_the_work(quick, tmp_path):
    store = SeaweedFS(tmp_path / "s3", access_key="key", secret_key="secret-secret", log=tmp_path / "s3.log")
    store.start()
    quick.settings = Settings.model_validate({**dict(quick.settings), **store.settings(), "lease_seconds": 20.0})
    try:
        quick.store = quick.store.from_settings(quick.settings)
        quick.store.ensure_bucket()
        with running("workers.maintain", quick.settings, tmp_path), running("workers.run", quick.settings, tmp_path):
            until(lambda: quick.column("SELECT state FROM workers") == ["idle"])
            job_id = await quick.generate(steps=100)
            until(lambda: quick.job(job_id).state == "running")
            store.process.kill()
            until(lambda: quick.job(job_id).stage == "uploading")
            store.start()
            until(lambda: quick.job(job_id).state == "succeeded", seconds=90)
        assert quick.outcomes(job_id) == ["succeeded"]
    finally:
        store.process.kill()
