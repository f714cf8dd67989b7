"""Turbo and latent consistency models draw what diffusers' own pipelines draw, from the request's seed alone."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import LatentConsistencyModelPipeline, StableDiffusionPipeline, StableDiffusionXLPipeline
from torch import Tensor

from core.catalog.facts import read_facts
from tests.engine.conftest import edit_json, load
from tests.engine.tiny import Family, build_few_step_pipeline, build_tiny_pipeline
from workers.engine.attention import Conditioning
from workers.engine.base_model import BaseModel
from workers.engine.conditioning import Prompt
from workers.engine.errors import EngineError, Interrupted, ModelUnreadable, SettingsInvalid
from workers.engine.family import Guidance
from workers.engine.generation import GenerationRequest, generate
from workers.engine.samplers import draw_latents, takes_unconditional

SEED, SIZE = 7, (16, 16)
PIPELINES = {"sd": StableDiffusionPipeline, "sdxl": StableDiffusionXLPipeline}


def drawn(
    base: BaseModel, prompts: list[str], seeds: list[int], *, steps: int, guidance: float = 1.0, size: Any = SIZE
) -> Tensor:
    with torch.no_grad():
        conditional = base.conditioner.condition([Prompt(prompt) for prompt in prompts], size)
        blank = base.conditioner.condition([Prompt("")] * len(prompts), size)
    return draw_latents(
        base,
        seeds,
        base.latent_shape(*size),
        conditional,
        blank if takes_unconditional(base) else None,
        steps=steps,
        guidance=[guidance] * len(prompts),
        on_step=lambda: None,
        should_stop=lambda: False,
    )


def drawn_by_diffusers(pipeline: Any, folder: Path, *, size: tuple[int, int] = SIZE, **asked: Any) -> Tensor:
    pipe = pipeline.from_pretrained(folder, low_cpu_mem_usage=False)
    pipe.set_progress_bar_config(disable=True)
    generator = torch.Generator().manual_seed(SEED)
    width, height = size
    latents: Tensor = pipe(
        "a red cat", generator=generator, width=width, height=height, output_type="latent", **asked
    ).images
    return latents


def assert_close(ours: Tensor, theirs: Tensor) -> None:
    torch.testing.assert_close(ours, theirs, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("family", ["sd", "sdxl"])
@pytest.mark.parametrize("scheduler", ["euler", "ancestral"])
@pytest.mark.parametrize("steps", [1, 2, 4])
def test_turbo_models_draw_what_diffusers_does_without_guidance(tmp_path: Path, family, scheduler, steps) -> None:
    folder = build_few_step_pipeline(tmp_path, scheduler, family=family)
    base = load(folder)
    assert base.guidance is Guidance.NONE
    expected = drawn_by_diffusers(PIPELINES[family], folder, num_inference_steps=steps, guidance_scale=0.0)
    assert_close(drawn(base, ["a red cat"], [SEED], steps=steps), expected)


def test_turbo_models_draw_other_sizes_as_diffusers_does(tmp_path: Path) -> None:
    folder = build_few_step_pipeline(tmp_path, "ancestral", family="sdxl")
    expected = drawn_by_diffusers(
        StableDiffusionXLPipeline, folder, size=(32, 16), num_inference_steps=2, guidance_scale=0.0
    )
    assert_close(drawn(load(folder), ["a red cat"], [SEED], steps=2, size=(32, 16)), expected)


@pytest.mark.parametrize("family", ["sd", "sdxl"])
@pytest.mark.parametrize("steps", [1, 4, 8])
@pytest.mark.parametrize("scaling", [10.0, 0.001])  # the usual one leaves the boundary condition next to no say
def test_consistency_models_draw_what_diffusers_does(tmp_path: Path, family, steps, scaling) -> None:
    folder = build_few_step_pipeline(tmp_path, "lcm", family=family)
    edit_json(folder / "scheduler" / "scheduler_config.json", timestep_scaling=scaling)
    base = load(folder)
    assert base.guidance is Guidance.NONE
    expected = drawn_by_diffusers(PIPELINES[family], folder, num_inference_steps=steps, guidance_scale=1.0)
    assert_close(drawn(base, ["a red cat"], [SEED], steps=steps), expected)


@pytest.mark.parametrize("guidance", [1.0, 8.5])
@pytest.mark.parametrize(
    "pipeline", [StableDiffusionPipeline, LatentConsistencyModelPipeline, StableDiffusionXLPipeline]
)
def test_a_network_that_reads_guidance_is_told_what_diffusers_tells_it(tmp_path: Path, pipeline, guidance) -> None:
    family: Family = "sdxl" if pipeline is StableDiffusionXLPipeline else "sd"
    folder = build_few_step_pipeline(tmp_path, "lcm", family=family, reads_guidance=True)
    if pipeline is LatentConsistencyModelPipeline:
        edit_json(folder / "model_index.json", _class_name=pipeline.__name__)
    base = load(folder)
    assert base.guidance is Guidance.EMBEDDED
    expected = drawn_by_diffusers(pipeline, folder, num_inference_steps=4, guidance_scale=guidance)
    assert_close(drawn(base, ["a red cat"], [SEED], steps=4, guidance=guidance), expected)


def test_each_sample_is_told_its_own_guidance_and_noised_from_its_own_seed(tmp_path: Path) -> None:
    base = load(build_few_step_pipeline(tmp_path, "lcm", reads_guidance=True))
    x, t = torch.randn(2, 4, 8, 8), torch.tensor([500, 500])
    with torch.no_grad():
        told = base.conditioner.condition([Prompt("a cat")] * 2)
        both = base.denoiser.output(x, t, told, guidance=torch.tensor([2.0, 9.0]))
        assert not torch.allclose(both, base.denoiser.output(x, t, told, guidance=torch.tensor([9.0, 2.0])), atol=1e-3)
        none, less = (base.denoiser.output(x, t, told, guidance=torch.tensor([g, g])) for g in (1.0, 0.0))
        assert torch.equal(none, less)
    crowd = drawn(base, ["a cat", "a dog", "a hat"], [1, 2, 3], steps=4, guidance=8.0)
    assert_close(crowd[1:2], drawn(base, ["a dog"], [2], steps=4, guidance=8.0))


@pytest.mark.parametrize("scheduler", ["euler", "ancestral"])
def test_base_models_with_eulers_scheduler_start_and_end_as_it_does(tmp_path: Path, scheduler) -> None:
    """An ancestral one is drawn without fresh noise all the same: teacher pairs are of one noise each."""
    folder = build_few_step_pipeline(tmp_path, scheduler, family="sdxl", spacing="leading")
    base = load(folder)
    assert base.guidance is Guidance.CLASSIFIER_FREE
    ours = drawn(base, ["a red cat"], [SEED], steps=4, guidance=5.0)
    index = {"scheduler": ["diffusers", "EulerDiscreteScheduler"]}
    edit_json(folder / "model_index.json", **index)
    edit_json(folder / "scheduler" / "scheduler_config.json", _class_name="EulerDiscreteScheduler")
    expected = drawn_by_diffusers(StableDiffusionXLPipeline, folder, num_inference_steps=4, guidance_scale=5.0)
    assert_close(ours, expected)


REQUEST = {"prompt": "a red cat", "seed": 1, "steps": 2, "guidance": 1.0, "width": 16, "height": 16}


def answer(base: BaseModel, **changes: Any) -> object:
    (answered,) = generate(
        base,
        [GenerationRequest(**{**REQUEST, **changes})],
        batch_size=1,
        on_progress=lambda *_: None,
        should_stop=lambda: False,
    )
    return answered


@pytest.mark.parametrize(
    ("reads_guidance", "changes", "detail"),
    [
        (False, {"guidance": 2.0}, "takes no guidance"),
        (False, {"negative_prompt": "a dog"}, "no negative prompt"),
        (True, {"negative_prompt": "a dog"}, "no negative prompt"),
        (True, {"guidance": 8.0}, None),
        (False, {"steps": 51}, "from 1 to 50"),
        (False, {}, None),
    ],
)
def test_what_the_model_has_built_in_is_refused(tmp_path: Path, reads_guidance, changes, detail) -> None:
    given = answer(load(build_few_step_pipeline(tmp_path, "lcm", reads_guidance=reads_guidance)), **changes)
    if detail is None:
        assert not isinstance(given, EngineError)
    else:
        assert isinstance(given, SettingsInvalid)
        assert detail in str(given)


def test_a_stop_is_obeyed_at_the_next_step(tmp_path: Path) -> None:
    base = load(build_few_step_pipeline(tmp_path, "lcm"))
    done: list[None] = []
    conditional: Conditioning = base.conditioner.condition([Prompt("a cat")])
    with pytest.raises(Interrupted) as stopped:
        draw_latents(
            base,
            [1],
            base.latent_shape(16, 16),
            conditional,
            None,
            steps=4,
            guidance=[1.0],
            on_step=lambda: done.append(None),
            should_stop=lambda: len(done) == 2,
        )
    assert stopped.value.step == len(done) == 2


def test_a_folder_may_say_what_it_does_with_guidance_where_its_networks_allow_it(tmp_path: Path) -> None:
    turbo = build_few_step_pipeline(tmp_path / "turbo", "euler")
    plain = build_tiny_pipeline(tmp_path / "plain", prediction="epsilon")
    consistent = build_few_step_pipeline(tmp_path / "lcm", "lcm")
    for folder, said, guidance in (
        (turbo, "classifier_free", Guidance.CLASSIFIER_FREE),
        (plain, "none", Guidance.NONE),
        (plain, "embedded", None),
        (consistent, "classifier_free", None),
        (plain, ["none"], None),
    ):
        (folder / "lockstep.json").write_text('{"name": "any"}')
        edit_json(folder / "lockstep.json", guidance=said)
        if guidance is None:
            with pytest.raises(ModelUnreadable, match="guidance"):
                load(folder)
        else:
            assert load(folder).guidance is guidance


@pytest.mark.parametrize("family", ["sd", "sdxl"])
@pytest.mark.parametrize("scheduler", ["euler", "ancestral", "lcm", "base"])
@pytest.mark.parametrize("reads_guidance", [False, True])
def test_the_catalogue_and_the_engine_read_the_same_of_a_folder(
    tmp_path: Path, family, scheduler, reads_guidance
) -> None:
    shape: dict[str, Any] = {"family": family, "reads_guidance": reads_guidance}
    if scheduler == "base":
        folder = build_few_step_pipeline(tmp_path, "euler", spacing="leading", **shape)
    else:
        folder = build_few_step_pipeline(tmp_path, scheduler, **shape)
    base, facts = load(folder), read_facts(str(folder))
    assert facts.guidance == base.guidance
    told = base.guidance.default_drawing(base.denoiser)
    assert {name: facts.model_dump()[name] for name in told} == told
    assert facts.max_steps <= base.denoiser.schedule.most_steps
    assert facts.size == base.native_size
    for side in (facts.least_size, facts.size, facts.max_size):
        base.latent_shape(side, side)
