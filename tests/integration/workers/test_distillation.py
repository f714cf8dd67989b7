"""Distillations as a worker runs them: shards, checkpoints, previews, pauses and the student at the end.

One test has the real engine; the others a scripted one that leaves files as the real one does.
"""

from __future__ import annotations

import io
import os
import signal
from collections.abc import Awaitable, Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession

from core.control import families, verbs
from core.db.engine import async_engine, bind_tenant
from core.jobs.distilling import DistillationRequest, accept_distillation
from core.jobs.submission import QueueLimits
from core.storage.s3 import ObjectMissing
from tests.deployment import POOL, serving
from tests.integration.workers.scripted import ScriptedChild
from tests.waiting import until
from workers import protocol
from workers.attempt import PATIENCE
from workers.gpu_child import GpuChild

SETTINGS = {"batch_size": 2, "critic_ratio": 1, "report_every": 1}
REQUEST = DistillationRequest("swift", prompts=("a red cat", "the dog"), pairs=66, pair_steps=1, settings=SETTINGS)
SHARDS = 2


async def as_tenant(deployment, use: Callable[[AsyncSession], Awaitable[Any]]) -> Any:
    """Run a use case of the API in its transaction."""
    engine = async_engine(deployment.settings.api_dsn)
    async with AsyncSession(engine, expire_on_commit=False) as session, session.begin():
        bind_tenant(session, deployment.tenant_id)
        result = await use(session)
    await engine.dispose()
    return result


async def distill(deployment, request: DistillationRequest = REQUEST) -> Any:
    limits = QueueLimits(pool=POOL, max_attempts=3, tenant_max_running=16)
    return await as_tenant(
        deployment,
        lambda session: accept_distillation(
            session, deployment.tenant_id, request, limits=limits, draw_seed=lambda: 1
        ),
    )  # fmt: skip


def let_go_on(deployment) -> None:
    """What maintenance does: parents of finished shards, and all that waits for its time, become runnable."""
    with deployment.sessions.begin() as session:
        families.settle(session)
    deployment.bring_back()


def events(deployment, job_id: str, kind: str):
    return deployment.column(
        "SELECT data FROM events WHERE job_id = :id AND type = :kind ORDER BY sequence", id=job_id, kind=kind
    )


def error_code(deployment, job_id: str) -> str | None:
    error = deployment.job(job_id).error
    return None if error is None else error["code"]


class Engine:
    """Answers at once; what is ``held`` (a kind of work) is answered only when it is stopped."""

    def __init__(self) -> None:
        self.held: type | tuple[()] = ()
        self.asked: list[Any] = []
        self.pairs: list[bytes] = []  # as they were handed over
        self.student = b""  # likewise, for a generation
        self.deaf = False  # to stops
        self.hasty = False  # done before a stop can reach it

    def __call__(self, message: Any) -> list[Any]:
        self.asked.append(message)
        if isinstance(message, protocol.Stop):
            (work,) = [asked for asked in self.asked[-2:] if not isinstance(asked, protocol.Stop)]
            if self.deaf:
                return []
            return self._answer(work, Path(work.scratch_dir)) if self.hasty else [self._stopped(work)]
        if isinstance(message, protocol.Distill):
            self.pairs = [Path(path).read_bytes() for path in message.pairs]
        if isinstance(message, protocol.Generate):
            self.student = Path(message.student).read_bytes() if message.student else b""
        if isinstance(message, self.held):
            return []
        return self._answer(message, Path(message.scratch_dir))

    def _stopped(self, work: Any) -> protocol.Stopped:
        if not isinstance(work, protocol.Distill):
            return protocol.Stopped(work.request_id, 7, None)
        path = Path(work.scratch_dir) / "checkpoint.safetensors"
        path.write_bytes(b"checkpoint 7")
        return protocol.Stopped(work.request_id, 7, str(path))

    def _answer(self, work: Any, scratch: Path) -> list[Any]:
        match work:
            case protocol.DrawPairs():
                path = scratch / f"pairs-{work.shard:05d}-of-{work.wanted.shards:05d}.safetensors"
                path.write_bytes(b"shard %d" % work.shard)
                return [protocol.PairsDrawn(work.request_id, str(path), path.stat().st_size)]
            case protocol.Distill():
                sheet, student = scratch / "preview-000002.webp", scratch / "student.safetensors"
                Image.new("RGB", (64, 32)).save(sheet)
                student.write_bytes(b"a student")
                return [
                    protocol.Preview(work.request_id, 2, str(sheet)),
                    protocol.Distilled(work.request_id, str(student), (999,), {"sample_mean": 0.5}, 9),
                ]
        return [protocol.Failed(work.request_id, "out-of-memory", "full", retryable=False)]


@pytest.fixture
def engine() -> Engine:
    return Engine()


@pytest.fixture
def worker(deployment, engine):
    return deployment.supervisor(child=ScriptedChild(engine), patience=replace(PATIENCE, stopping=0.5))


async def distilled(deployment, worker) -> Any:
    """A distillation that was run to its end; its row."""
    job = await distill(deployment)
    worker.serve()
    let_go_on(deployment)
    worker.serve()
    return deployment.job(job.id)


async def test_the_engine_is_asked_for_every_shard_and_then_for_the_student_with_all_of_them(
    deployment, worker, engine
):
    job = await distilled(deployment, worker)
    *shards, distillation = engine.asked
    assert sorted(asked.shard for asked in shards) == list(range(SHARDS))
    for asked in engine.asked:  # the plan of the pairs is made of these
        assert (asked.prompts, asked.wanted) == (REQUEST.prompts, protocol.PairsWanted(66, 1, SHARDS, seed=1))
        assert asked.settings == SETTINGS
    assert engine.pairs == [b"shard 0", b"shard 1"]
    assert (distillation.seed, distillation.resume_from) == (1, None)
    rows = deployment.column("SELECT result FROM jobs WHERE parent_id = :id", id=job.id)
    assert sum(result["count"] for result in rows) == 66
    names = deployment.column("SELECT name FROM files WHERE purpose = 'pairs' ORDER BY name")
    assert names == ["pairs-00000-of-00002.safetensors", "pairs-00001-of-00002.safetensors"]


async def test_a_distillation_ends_with_a_student_that_can_be_drawn_with(deployment, worker, engine):
    job = await distilled(deployment, worker)
    assert job.state == "succeeded"
    student = deployment.one("SELECT * FROM models WHERE name = 'swift'")
    file = deployment.one("SELECT * FROM files WHERE purpose = 'student'")
    assert (student.id, student.file_id) == (job.result["model_id"], file.id)
    assert job.result == {
        "model_id": student.id,
        "model": "swift",
        "file_id": file.id,
        "size_bytes": 9,
        "timesteps": [999],
        "metrics": {"sample_mean": 0.5},
    }
    assert deployment.column("SELECT facts -> 'student' ->> 'teacher' FROM models WHERE name = 'swift'") == ["tiny"]
    assert (file.name, file.media_type) == ("swift.safetensors", "application/vnd.lockstep.student+safetensors")
    for _ in range(2):  # from storage, then from the worker's own disk
        await deployment.generate(model_id=student.id, steps=1, guidance=1)
        worker.serve()
        assert engine.student == b"a student"
        assert engine.asked[-1].model == engine.asked[0].model  # its teacher's folder
        deployment.store.delete(file.key)


async def test_a_student_is_no_base_to_train_on_and_one_whose_file_is_gone_draws_nothing(deployment, worker):
    job = await distilled(deployment, worker)
    deployment.store.delete(deployment.one("SELECT key FROM files WHERE purpose = 'student'").key)
    drawing = await deployment.generate(model_id=job.result["model_id"], steps=1, guidance=1)
    training = await deployment.train(model_id=job.result["model_id"])
    worker.serve()
    assert error_code(deployment, drawing) == error_code(deployment, training) == "input-missing"


async def test_a_preview_is_told_with_a_picture_that_can_be_fetched(deployment, worker):
    job = await distilled(deployment, worker)
    (told,) = events(deployment, job.id, "distillation.preview")
    assert told["preview"]["step"] == 2
    file = deployment.one("SELECT * FROM files WHERE id = :id", id=told["preview"]["file_id"])
    assert (file.purpose, file.job_id, file.width, file.height) == ("preview", job.id, 64, 32)
    assert Image.open(io.BytesIO(deployment.store.get(file.key))).size == (64, 32)


async def test_a_paused_distillation_is_given_back_and_goes_on_from_its_checkpoint_when_resumed(
    deployment, worker, engine
):
    job = await distill(deployment)
    worker.serve()
    let_go_on(deployment)
    engine.held = protocol.Distill
    with serving(worker):
        until(lambda: isinstance(engine.asked[-1], protocol.Distill))
        await as_tenant(deployment, lambda session: verbs.pause(session, job.id))
    row = deployment.job(job.id)
    assert (row.state, row.attempt, row.checkpoint["step"]) == ("queued", 0, 7)
    assert deployment.outcomes(job.id) == ["returned"]
    let_go_on(deployment)
    assert worker.serve() == 0

    await as_tenant(deployment, lambda session: verbs.resume(session, job.id))
    let_go_on(deployment)
    engine.held = ()
    worker.serve()
    assert Path(engine.asked[-1].resume_from).name == "resume.safetensors"
    assert deployment.job(job.id).state == "succeeded"


async def test_a_pause_reaches_the_shards_and_a_drain_gives_them_back_too(deployment, worker, engine):
    job = await distill(deployment)
    engine.held = protocol.DrawPairs
    with serving(worker):
        until(lambda: engine.asked)
        await as_tenant(deployment, lambda session: verbs.pause(session, job.id))
    assert worker.serve() == 0
    await as_tenant(deployment, lambda session: verbs.resume(session, job.id))
    let_go_on(deployment)
    with serving(worker):
        until(lambda: isinstance(engine.asked[-1], protocol.DrawPairs))
        worker.drain()
    shards = deployment.column("SELECT state || attempt FROM jobs WHERE parent_id = :id", id=job.id)
    assert shards == ["queued0"] * SHARDS
    assert deployment.column("SELECT outcome FROM job_attempts") == ["returned"] * 2


async def test_an_engine_that_does_not_give_way_is_killed_and_its_work_given_back(deployment, engine):
    child = ScriptedChild(engine)
    worker = deployment.supervisor(child=child, patience=replace(PATIENCE, giving_way=0.5))
    await distill(deployment)
    engine.held, engine.deaf = protocol.DrawPairs, True
    with serving(worker):
        until(lambda: engine.asked)
        worker.drain()
    assert child.killed
    assert deployment.column("SELECT outcome FROM job_attempts") == ["returned"]
    assert deployment.column("SELECT attempt FROM jobs WHERE kind = 'teacher_pairs'") == [0] * SHARDS


async def test_a_distillation_canceled_at_its_last_step_leaves_no_student(deployment, worker, engine):
    job = await distill(deployment)
    worker.serve()
    let_go_on(deployment)
    engine.held, engine.hasty = protocol.Distill, True
    with serving(worker):
        until(lambda: isinstance(engine.asked[-1], protocol.Distill))
        await deployment.cancel(job.id)
    assert deployment.outcomes(job.id) == ["canceled"]
    assert deployment.one("SELECT file_id FROM models WHERE name = 'swift'").file_id is None
    assert deployment.column("SELECT purpose FROM files WHERE purpose = 'student'") == []


async def test_a_distillation_whose_student_is_there_already_fails_for_good(deployment, worker):
    job = await distill(deployment)
    worker.serve()
    let_go_on(deployment)
    with deployment.sessions.begin() as session:
        session.execute(text("UPDATE models SET file_id = (SELECT min(id) FROM files) WHERE kind = 'student'"))
    worker.serve()
    assert error_code(deployment, job.id) == "model-name-taken"
    assert deployment.outcomes(job.id) == ["failed"]
    assert deployment.column("SELECT id FROM files WHERE purpose = 'student'") == []


async def test_a_shard_that_is_gone_fails_the_distillation_for_good(deployment, worker):
    job = await distill(deployment)
    worker.serve()
    let_go_on(deployment)
    deployment.store.delete(deployment.column("SELECT key FROM files WHERE purpose = 'pairs'")[0])
    worker.serve()
    assert error_code(deployment, job.id) == "input-missing"


async def test_a_distillation_whose_engine_is_killed_goes_on_and_its_student_draws(deployment):
    child = GpuChild(device="cpu")
    child.ensure_running()
    worker = deployment.supervisor(child=child)
    settings = SETTINGS | {"steps": 40, "checkpoint_every": 4, "preview_every": 20}
    job_id = (await distill(deployment, replace(REQUEST, settings=settings))).id
    worker.serve()
    let_go_on(deployment)
    with serving(worker):
        deployment.until_checkpoint(job_id)
        assert child.pid is not None
        os.kill(child.pid, signal.SIGKILL)
    job = deployment.job(job_id)
    assert job.state == "queued"
    let_go_on(deployment)
    worker.serve()
    told = [data["step"] for data in events(deployment, job_id, "distillation.checkpoint")]
    assert told == sorted(set(told))  # no step between two checkpoints was done twice
    assert deployment.outcomes(job_id) == ["failed", "succeeded"]
    with pytest.raises(ObjectMissing):  # nothing can go on from a checkpoint any more
        deployment.store.get(deployment.job(job_id).checkpoint["key"])
    result = deployment.job(job_id).result
    drawing = await deployment.generate(model_id=result["model_id"], steps=1, guidance=1)
    worker.serve()
    worker.close()
    assert deployment.job(drawing).state == "succeeded"
