"""Pictures as their tenants fetch them: the format that was asked for, and what each says of itself."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image

from core.release import release
from tests.provenance import facts_of, written_facts


def stored(deployment, job_id):
    """Row and content of each picture."""
    files = [image["file_id"] for image in deployment.job(job_id).result["images"]]
    rows = [deployment.one("SELECT * FROM files WHERE id = :id", id=file_id) for file_id in files]
    return [(row, deployment.store.get(row.key)) for row in rows]


def pixels(content):
    return np.asarray(Image.open(io.BytesIO(content)).convert("RGB"))


async def test_every_format_is_stored_as_what_it_is(deployment, worker):
    files = [{}, {"format": "webp"}, {"format": "webp", "quality": 60}]
    ids = [await deployment.generate(file=file, seed=3) for file in files]
    worker.serve()
    (png, exact, small) = [stored(deployment, job_id)[0] for job_id in ids]
    assert [(row.name, row.media_type) for row, _ in (png, exact, small)] == [
        ("0.png", "image/png"),
        ("0.webp", "image/webp"),
        ("0.webp", "image/webp"),
    ]
    assert [Image.open(io.BytesIO(content)).format for _, content in (png, exact, small)] == ["PNG", "WEBP", "WEBP"]
    assert np.array_equal(pixels(png[1]), pixels(exact[1]))
    assert not np.array_equal(pixels(png[1]), pixels(small[1]))


@pytest.mark.parametrize("picture_format", ["png", "webp"])
async def test_a_picture_says_what_it_was_drawn_from(deployment, worker, picture_format):
    trained = await deployment.train(steps=1)
    worker.serve()
    made = deployment.job(trained).result
    tom = {"concept_id": made["concept_id"], "version": 1, "file_id": made["file_id"], "name": "tom"}
    tom |= {"key_lock": "local", "gate_bias": 0.6, "gate_temperature": 0.15}
    sweep = {"concept": "tom", "dial": "gate_bias", "values": (0.4, 0.8)}
    asked = {"prompt": "a <tom> on a hat", "negative_prompt": "grey", "seed": 7, "n": 2}
    job_id = await deployment.generate(**asked, concepts=[tom], sweep=sweep, file={"format": picture_format})
    worker.serve()
    told = [facts_of(content) for _, content in stored(deployment, job_id)]
    sha256 = deployment.one("SELECT sha256 FROM files WHERE id = :id", id=made["file_id"]).sha256
    assert told[0] == {
        "lockstep": release(),
        "job": job_id,
        "model": "tiny",
        "model_id": deployment.model_id,
        "weights": told[1]["weights"],
        "prompt": "a <tom> on a hat",
        "negative_prompt": "grey",
        "concepts": [
            {
                "id": made["concept_id"], "as": "tom", "version": 1, "sha256": sha256,
                "key_lock": "local", "gate_bias": 0.4, "gate_temperature": 0.15,
            }
        ],
        "seed": 7,
        "steps": 2,
        "guidance": 3.0,
        "width": 16,
        "height": 16,
    }  # fmt: skip
    assert told[1]["concepts"][0]["gate_bias"] == 0.8


async def test_the_pictures_of_a_job_tell_each_its_own_seed(deployment, worker):
    job_id = await deployment.generate(n=3, seed=11)
    worker.serve()
    assert [facts_of(content)["seed"] for _, content in stored(deployment, job_id)] == [11, 12, 13]


@pytest.mark.parametrize("file", [{}, {"format": "webp"}, {"format": "webp", "quality": 50}])
async def test_a_reproduced_picture_is_the_original_bit_for_bit(deployment, worker, file):
    trained = await deployment.train(steps=2)
    worker.serve()
    made = deployment.job(trained).result
    tom = {"concept_id": made["concept_id"], "version": 1, "file_id": made["file_id"], "name": "tom"}
    tom |= {"key_lock": "global", "gate_bias": 0.3, "gate_temperature": 0.2}
    job_id = await deployment.generate(prompt="a <tom> on a hat", concepts=[tom], n=3, seed=5, steps=4, file=file)
    worker.serve()
    again = await deployment.reproduce(job_id)
    worker.serve()
    first, second = stored(deployment, job_id), stored(deployment, again)
    assert len(first) == len(second) == 3
    for (_, original), (_, repeated) in zip(first, second, strict=True):
        assert np.array_equal(pixels(original), pixels(repeated))
        assert facts_of(repeated) == facts_of(original) | {"job": again}
    assert not np.array_equal(pixels(first[0][1]), pixels(first[1][1]))


async def test_a_job_may_keep_its_prompt_to_itself_beside_one_that_does_not(deployment, worker):
    silent = await deployment.generate(prompt="a secret", file={"metadata": False})
    open_one = await deployment.generate(prompt="a cat")
    assert worker.serve() == 2
    ((_, kept),) = stored(deployment, silent)
    ((_, told),) = stored(deployment, open_one)
    assert written_facts(kept) is None
    assert b"secret" not in kept
    assert facts_of(told)["prompt"] == "a cat"
