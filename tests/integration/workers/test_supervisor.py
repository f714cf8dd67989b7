from __future__ import annotations

import io
import json
import os
import shutil
import signal

import numpy as np
import pytest
from PIL import Image

from tests.architecture.source import ROOT
from tests.deployment import STEPS, serving
from tests.waiting import until
from workers.gpu_child import GpuChild


async def trained_concept(deployment, worker):
    job_id = await deployment.train(steps=2)
    worker.serve()
    return deployment.job(job_id).result


def use(result, **changes):
    values = {"concept_id": result["concept_id"], "version": 1, "file_id": result["file_id"], "name": "tom"}
    return values | {"key_lock": "local", "gate_bias": 0.6, "gate_temperature": 0.15} | changes


def pixels(deployment, image):
    row = deployment.one("SELECT key FROM files WHERE id = :id", id=image["file_id"])
    return np.asarray(Image.open(io.BytesIO(deployment.store.get(row.key)))).astype(int)


async def test_a_generation_leaves_pictures_that_its_tenant_can_fetch(deployment, worker):
    job_id = await deployment.generate(n=2, seed=7)
    assert worker.serve() == 1
    job = deployment.job(job_id)
    assert job.state == "succeeded"
    assert [image["seed"] for image in job.result["images"]] == [7, 8]
    for image in job.result["images"]:
        row = deployment.one("SELECT * FROM files WHERE id = :id", id=image["file_id"])
        picture = Image.open(io.BytesIO(deployment.store.get(row.key)))
        assert picture.size == (row.width, row.height) == (16, 16)
        assert row.key.startswith(f"jobs/{job_id}/")
    assert job.gpu_seconds > 0


async def test_the_picture_of_a_draft_is_a_preview(deployment, worker):
    job_id = await deployment.generate(draft=True)
    worker.serve()
    assert deployment.column("SELECT purpose FROM files WHERE job_id = :id", id=job_id) == ["preview"]


async def test_a_batch_of_several_jobs_is_one_claim_and_every_job_its_own_result(deployment, worker):
    ids = [await deployment.generate(prompt=prompt) for prompt in ("a cat", "a dog", "a red hat")]
    assert worker.serve() == 3
    results = [deployment.job(job_id).result["images"] for job_id in ids]
    assert len({images[0]["file_id"] for images in results}) == 3


async def test_a_training_makes_a_version_that_generations_can_use(deployment, worker):
    result = await trained_concept(deployment, worker)
    assert result["version"] == 1
    row = deployment.one("SELECT * FROM files WHERE id = :id", id=result["file_id"])
    assert (row.purpose, row.size_bytes) == ("concept", result["size_bytes"])
    job_id = await deployment.generate(prompt="a <tom> on a hat", concepts=[use(result)])
    worker.serve()
    assert deployment.job(job_id).state == "succeeded"


async def test_a_validated_training_leaves_its_scores_and_the_bias_it_recommends(
    deployment, worker, tiny_model, tmp_path
):
    folder = shutil.copytree(tiny_model, tmp_path / "validated")
    card = json.loads((folder / "lockstep.json").read_text())
    card["perfusion"] |= {"validate_every": 1, "validation_prompts": ["a {}"], "gate_biases": [0.45]}
    card["validation"] = {"clip": str(ROOT / "models" / "storybook-clip"), "steps": 1}
    (folder / "lockstep.json").write_text(json.dumps(card))
    deployment.one("UPDATE models SET location = :at RETURNING id", at=str(folder))
    job_id = await deployment.train(steps=3)
    worker.serve()
    scores = {"clip_i", "clip_t", "harmonic_mean"}
    assert scores <= deployment.job(job_id).progress.keys()
    version = deployment.one("SELECT * FROM concept_versions WHERE job_id = :id", id=job_id)
    assert version.gate_bias == 0.45
    assert version.metrics.keys() == {"loss", "steps", "seconds"} | scores
    assert version.metrics["steps"] in (1, 2, 3)


@pytest.mark.parametrize(("dial", "values"), [("gate_bias", (0.3, 0.9, 0.6)), ("gate_temperature", (0.05, 0.9, 0.2))])
async def test_a_sweep_draws_what_generations_with_its_values_and_seed_would_draw(deployment, worker, dial, values):
    asked = {"prompt": "a <tom> on a hat", "seed": 7}
    tom = use(await trained_concept(deployment, worker))
    sweep = {"concept": "tom", "dial": dial, "values": values}
    swept = await deployment.generate(**asked, n=3, concepts=[tom], sweep=sweep)
    worker.serve()
    images = deployment.job(swept).result["images"]
    assert [image.keys() - {"file_id", "width", "height"} for image in images] == [{"seed", dial}] * 3
    assert [(image["seed"], image[dial]) for image in images] == [(7, value) for value in values]

    alone = [await deployment.generate(**asked, concepts=[tom | {dial: value}]) for value in values]
    worker.serve()
    drawn = [pixels(deployment, image) for image in images]
    for picture, job_id in zip(drawn, alone, strict=True):
        (image,) = deployment.job(job_id).result["images"]
        assert np.abs(picture - pixels(deployment, image)).max() <= 1  # grey level
    assert np.abs(drawn[0] - drawn[1]).max() > 1  # the dial does something


async def test_one_jobs_broken_concept_leaves_its_neighbours_alone(deployment, worker):
    result = await trained_concept(deployment, worker)
    broken = deployment.upload(b"not a concept", purpose="concept")
    bad = await deployment.generate(prompt="a <tom>", concepts=[use(result, file_id=broken)])
    gone = await deployment.generate(prompt="a <tom>", concepts=[use(result, file_id="file_gone")])
    good = await deployment.generate(prompt="a <tom>", concepts=[use(result)])
    worker.serve()
    assert deployment.job(good).state == "succeeded"
    assert deployment.job(bad).state == "failed"
    assert (deployment.job(gone).state, deployment.job(gone).error["code"]) == ("failed", "input-missing")


async def test_a_picture_that_is_none_fails_the_training_for_good(deployment, worker):
    job_id = await deployment.train(file_ids=[deployment.upload(b"not a picture")])
    worker.serve()
    job = deployment.job(job_id)
    assert (job.state, job.attempt, job.error["retryable"]) == ("failed", 1, False)


async def test_an_object_that_was_changed_behind_our_back_is_not_trained_on(deployment, worker):
    file_id = deployment.picture("teal")
    row = deployment.one("SELECT key FROM files WHERE id = :id", id=file_id)
    deployment.store.put(row.key, b"something else", media_type="image/png")
    job_id = await deployment.train(file_ids=[file_id])
    worker.serve()
    assert deployment.job(job_id).error["code"] == "input-missing"


async def test_a_deleted_picture_fails_the_training_for_good(deployment, worker):
    job_id = await deployment.train(file_ids=["file_gone"])
    worker.serve()
    assert deployment.job(job_id).error["code"] == "input-missing"


async def test_killing_the_engine_in_mid_training_costs_one_attempt_and_the_job_goes_on(deployment):
    child = GpuChild(device="cpu")
    child.ensure_running()
    worker = deployment.supervisor(child=child)
    job_id = await deployment.train()
    with serving(worker):
        deployment.until_checkpoint(job_id)
        assert child.pid is not None
        os.kill(child.pid, signal.SIGKILL)
    assert deployment.job(job_id).state == "queued"
    step = deployment.job(job_id).checkpoint["step"]
    assert deployment.bring_back() == 1
    with serving(worker):
        until(lambda: (deployment.job(job_id).progress or {}).get("step", 0) > step)
    worker.close()
    job = deployment.job(job_id)
    assert (job.state, job.attempt) == ("succeeded", 2)
    assert deployment.outcomes(job_id) == ["failed", "succeeded"]
    assert deployment.column("SELECT version FROM concept_versions WHERE job_id = :id", id=job_id) == [1]


async def test_a_canceled_training_stops_and_leaves_the_worker_free(deployment, worker):
    job_id = await deployment.train(steps=5000)
    with serving(worker):
        deployment.until_checkpoint(job_id)
        await deployment.cancel(job_id)
        until(lambda: deployment.job(job_id).state == "canceled")
    assert deployment.outcomes(job_id) == ["canceled"]
    other = await deployment.generate()
    worker.serve()
    assert deployment.job(other).state == "succeeded"


async def test_a_drained_worker_gives_its_training_back_with_a_checkpoint_and_no_attempt_lost(deployment, child):
    worker = deployment.supervisor(child=child)
    job_id = await deployment.train(steps=5000)
    with serving(worker):
        until(lambda: (deployment.job(job_id).progress or {}).get("step", 0) > 0)
        worker.drain()
    job = deployment.job(job_id)
    assert (job.state, job.attempt) == ("queued", 0)
    assert job.checkpoint["step"] > 0
    assert deployment.outcomes(job_id) == ["returned"]
    assert worker.serve() == 0  # it claims nothing more


async def test_a_worker_that_lost_its_lease_stops_and_writes_nothing(deployment):
    worker = deployment.supervisor()
    job_id = await deployment.train(steps=5000)
    with serving(worker):
        deployment.until_checkpoint(job_id)
        deployment.column(
            "UPDATE jobs SET state = 'queued', lease_token = NULL, lease_until = NULL, stage = NULL"
            " WHERE id = :id RETURNING id", id=job_id,
        )  # fmt: skip
    worker.close()
    assert deployment.job(job_id).state == "queued"
    assert deployment.column("SELECT 1 FROM concept_versions WHERE job_id = :id", id=job_id) == []


async def test_progress_is_told_and_not_too_often(deployment, worker):
    job_id = await deployment.train(steps=STEPS)
    worker.serve()
    told = deployment.column(
        "SELECT data FROM events WHERE job_id = :id AND type = 'training.progress' ORDER BY sequence", id=job_id
    )
    assert deployment.job(job_id).progress["step"] == STEPS
    assert 1 <= len(told) < STEPS / 4
    assert {"step", "steps", "loss"} <= told[-1]["progress"].keys()
