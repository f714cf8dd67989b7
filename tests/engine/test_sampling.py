"""The reference sampler against diffusers' own, and what a seed means."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from diffusers import DDIMScheduler, UNet2DConditionModel
from torch import Tensor

from tests.engine.conftest import load
from tests.engine.tiny import build_tiny_pipeline
from workers.engine.attention import Conditioning
from workers.engine.base_model import BaseModel
from workers.engine.conditioning import Prompt
from workers.engine.denoiser import Denoiser
from workers.engine.errors import Interrupted
from workers.engine.sampling import initial_noise, sample_ddim

SHAPE = (4, 8, 8)


def sample(base: BaseModel, prompts: list[str], seeds: list[int], *, steps: int = 10, guidance: float = 4.0) -> Tensor:
    with torch.no_grad():
        return sample_ddim(
            base.denoiser,
            initial_noise(seeds, SHAPE),
            base.conditioner.condition([Prompt(prompt) for prompt in prompts]),
            base.conditioner.condition([Prompt("")] * len(prompts)),
            steps=steps,
            guidance=[guidance] * len(prompts),
            on_step=lambda: None,
            should_stop=lambda: False,
        )


@torch.no_grad()
def diffusers_sample(folder: Path, base: BaseModel, prompt: str, *, seed: int, steps: int, guidance: float) -> Tensor:
    unet = UNet2DConditionModel.from_pretrained(folder, subfolder="unet", low_cpu_mem_usage=False).eval()
    scheduler = DDIMScheduler.from_pretrained(folder, subfolder="scheduler")
    scheduler.set_timesteps(steps)
    encodings = base.conditioner.encode([Prompt(""), Prompt(prompt)]).value_encodings
    x = initial_noise([seed], SHAPE)
    for t in scheduler.timesteps:
        without, with_prompt = unet(torch.cat([x, x]), t, encoder_hidden_states=encodings).sample.chunk(2)
        x = scheduler.step(without + guidance * (with_prompt - without), t, x).prev_sample
    return x


@pytest.mark.parametrize("prediction", ["v_prediction", "epsilon"])
def test_it_equals_diffusers_ddim(prediction: str, tmp_path: Path) -> None:
    folder = build_tiny_pipeline(tmp_path, prediction=prediction)
    base = load(folder)
    expected = diffusers_sample(folder, base, "a red cat", seed=7, steps=10, guidance=4.0)
    torch.testing.assert_close(sample(base, ["a red cat"], [7]), expected, atol=2e-4, rtol=1e-4)


def test_a_seed_draws_the_same_noise_in_any_company() -> None:
    crowd = initial_noise([5, 7, 9], SHAPE)
    assert torch.equal(crowd[1], initial_noise([7], SHAPE)[0])
    assert not torch.equal(crowd[0], crowd[1])


def test_a_picture_is_bit_equal_at_any_place_of_a_batch_of_the_same_size(tiny: BaseModel) -> None:
    one = sample(tiny, ["a cat", "a dog", "a hat"], [1, 2, 3])
    other = sample(tiny, ["the red dog", "a hat", "a cat"], [8, 3, 1])
    assert torch.equal(one[0], other[2])
    assert torch.equal(one[2], other[1])


def test_a_picture_alone_and_in_a_batch_are_equal_within_tolerance(tiny: BaseModel) -> None:
    together = sample(tiny, ["a cat", "a dog", "a hat"], [1, 2, 3])
    torch.testing.assert_close(together[1:2], sample(tiny, ["a dog"], [2]), atol=1e-4, rtol=1e-4)


def test_guidance_of_one_is_the_conditional_prediction_alone(tiny: BaseModel) -> None:
    unguided = sample(tiny, ["a cat"], [1], guidance=1.0)
    torch.testing.assert_close(unguided, sample(tiny, ["a cat"], [1], guidance=1.0 + 1e-7), atol=1e-3, rtol=1e-3)


def test_outside_the_guidance_interval_the_unconditional_half_is_left_out(
    tiny: BaseModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    schedule = replace(tiny.denoiser.schedule, guidance_interval=(0.0, 0.5))
    limited = replace(tiny, denoiser=Denoiser(tiny.denoiser.unet, schedule))
    sizes: dict[int, int] = {}
    predict = Denoiser.predict_x0

    def counting(denoiser: Denoiser, x: Tensor, timesteps: Tensor, conditioning: Conditioning) -> Tensor:
        sizes[int(timesteps[0])] = len(x)
        return predict(denoiser, x, timesteps, conditioning)

    monkeypatch.setattr(Denoiser, "predict_x0", counting)
    drawn = sample(limited, ["a cat", "a dog"], [1, 2])
    assert len(sizes) == 10
    assert all(size == (4 if timestep < 500 else 2) for timestep, size in sizes.items())
    assert not torch.allclose(drawn, sample(tiny, ["a cat", "a dog"], [1, 2]), atol=1e-3)


def test_a_stop_is_obeyed_at_the_next_step(tiny: BaseModel) -> None:
    steps: list[None] = []
    conditioning = tiny.conditioner.condition([Prompt("a cat")])
    with pytest.raises(Interrupted) as stopped:
        sample_ddim(
            tiny.denoiser,
            initial_noise([1], SHAPE),
            conditioning,
            conditioning,
            steps=10,
            guidance=[4.0],
            on_step=lambda: steps.append(None),
            should_stop=lambda: len(steps) == 3,
        )
    assert stopped.value.step == len(steps) == 3
