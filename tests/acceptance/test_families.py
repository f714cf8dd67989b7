"""Models that ship to be drawn in few steps, registered as they are and drawn with through the API.

All are tiny and of random weights: an SDXL-shaped Turbo model with a tiny decoder, a latent consistency model whose
network reads its guidance, and an SDXL-shaped base model that is named by a hub id and lies in the hub's cache.
"""

from __future__ import annotations

import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from lockstep import Invalid, Lockstep
from tests.acceptance.conftest import RunningStack, running, stack_folder
from tests.engine.tiny import build_few_step_pipeline, tiny_decoder

TURBO, LCM, BASE = "sdxl-turbo", "lcm", "tiny-xl"


@pytest.fixture(scope="module")
def families() -> Iterator[RunningStack]:
    with stack_folder() as folder:
        turbo = build_few_step_pipeline(folder / TURBO, "ancestral", family="sdxl")
        tiny_decoder(turbo / "decoder")
        (turbo / "lockstep.json").write_text(json.dumps({"decoder": "decoder"}))
        lcm = build_few_step_pipeline(folder / LCM, "lcm", reads_guidance=True)
        hub = {"HF_HUB_CACHE": str(folder / "hub"), "HF_HUB_OFFLINE": "1"}
        build_few_step_pipeline(cached(folder / "hub", "org", BASE), "euler", family="sdxl", spacing="leading")
        with running(folder / "data", str(turbo), str(lcm), f"org/{BASE}", **hub) as stack:
            yield stack


def cached(cache: Path, owner: str, name: str) -> Path:
    """The folder in which the hub's cache keeps the files of a model."""
    place, commit = cache / f"models--{owner}--{name}", "0" * 40
    (place / "refs").mkdir(parents=True)
    (place / "refs" / "main").write_text(commit)
    return place / "snapshots" / commit


@pytest.fixture(scope="module")
def lockstep(families: RunningStack) -> Iterator[Lockstep]:
    with Lockstep(base_url=families.url, api_key=families.new_key("acme")) as client:
        yield client


def drawn(lockstep: Lockstep, model: str, **asked: Any) -> tuple[dict[str, Any], np.ndarray]:
    """What the job says it was asked, and the picture."""
    job = lockstep.generations.create(prompt="a red cat", model=model, seed=7, **asked)
    job = lockstep.generations.wait(job.id, timeout=120)
    assert job.result is not None
    content = lockstep.files.content(job.result.images[0].file_id)
    return (job.model_extra or {})["params"], np.asarray(Image.open(io.BytesIO(content))).astype(int)


@pytest.mark.parametrize(
    ("name", "kind", "drawn"),  # family and guidance; steps, guidance and the most steps
    [
        (TURBO, ("stable-diffusion-xl", "none"), (1, 1.0, 200)),
        (LCM, ("stable-diffusion", "embedded"), (4, 8.5, 50)),
        (BASE, ("stable-diffusion-xl", "classifier_free"), (50, 6.0, 200)),
    ],
)
def test_a_model_is_shown_as_its_own_files_describe_it(lockstep, name, kind, drawn):
    model = next(model for model in lockstep.models.list() if model.name == name)
    assert (model.family, model.guidance) == kind
    assert (model.size, model.size_multiple, model.min_size, model.max_size) == (16, 4, 4, 32)
    assert (model.defaults["steps"], model.defaults["guidance"], model.max_steps) == drawn


@pytest.mark.parametrize(("name", "steps", "scale"), [(TURBO, 1, 1.0), (LCM, 4, 8.5)])
def test_it_draws_by_its_own_defaults(lockstep, name, steps, scale):
    params, picture = drawn(lockstep, name)
    assert (params["steps"], params["guidance"], params["size"]) == (steps, scale, "16x16")
    assert picture.shape == (16, 16, 3)
    assert picture.std() > 1


def test_a_turbo_model_draws_other_sizes_and_steps_and_no_guidance_is_0_or_1(lockstep):
    params, wide = drawn(lockstep, TURBO, size="32x16", steps=3, guidance=0)
    assert (params["guidance"], wide.shape) == (1.0, (16, 32, 3))
    _, again = drawn(lockstep, TURBO, size="32x16", steps=3, guidance=1)
    assert np.array_equal(wide, again)  # fresh noise is the seed's, too


def test_a_consistency_model_is_told_its_guidance(lockstep):
    _, little = drawn(lockstep, LCM, guidance=2.0)
    params, much = drawn(lockstep, LCM, guidance=12.0)
    assert params["guidance"] == 12.0
    assert not np.array_equal(little, much)


def test_a_base_model_of_the_hub_takes_guidance_and_negative_prompts(lockstep):
    params, picture = drawn(lockstep, BASE, steps=2, guidance=4.0, negative_prompt="a dog", size="16x32")
    assert (params["negative_prompt"], picture.shape) == ("a dog", (32, 16, 3))


@pytest.mark.parametrize(
    ("name", "asked", "code"),
    [
        (TURBO, {"guidance": 3.0}, "guidance-unsupported"),
        (TURBO, {"negative_prompt": "a dog"}, "guidance-unsupported"),
        (LCM, {"negative_prompt": "a dog"}, "guidance-unsupported"),
        (LCM, {"steps": 51}, "steps-unsupported"),
        (TURBO, {"size": 36}, "size-unsupported"),
        (BASE, {"size": 18}, "size-unsupported"),
    ],
)
def test_what_a_model_does_not_take_is_refused_before_it_is_queued(lockstep, name, asked, code):
    with pytest.raises(Invalid) as refusal:
        lockstep.generations.create(prompt="a red cat", model=name, **asked)
    assert refusal.value.code == code


def test_a_model_of_few_steps_is_no_teacher(lockstep):
    with pytest.raises(Invalid) as refusal:
        lockstep.distillations.create(name="swift", teacher=LCM, prompts=["a cat"])
    assert refusal.value.code == "guidance-unsupported"
