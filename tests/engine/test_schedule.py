"""The algebra between eps, x0 and v, and timesteps as the model's scheduler spaces them."""

from __future__ import annotations

import pytest
import torch
from diffusers import DDIMScheduler

from workers.engine.errors import ModelUnsupported, SettingsInvalid
from workers.engine.schedule import NoiseSchedule, Prediction


def schedule(prediction: str, **settings: object) -> NoiseSchedule:
    return NoiseSchedule.of(DDIMScheduler(prediction_type=prediction, clip_sample=False, steps_offset=1, **settings))


@pytest.mark.parametrize("prediction", list(Prediction))
def test_a_perfect_prediction_gives_back_the_clean_latents_and_the_noise(prediction: str) -> None:
    rule = schedule(prediction)
    x0, noise, t = torch.randn(5, 4, 8, 8), torch.randn(5, 4, 8, 8), torch.tensor([0, 250, 500, 750, 990])
    x_t = rule.add_noise(x0, noise, t)
    recovered = rule.to_x0(rule.target(x0, noise, t), x_t, t)
    torch.testing.assert_close(recovered, x0, atol=1e-3, rtol=1e-3)
    torch.testing.assert_close(rule.to_eps(x0, x_t, t), noise, atol=1e-3, rtol=1e-3)


def test_v_prediction_works_at_zero_terminal_signal() -> None:
    rule = schedule("v_prediction", rescale_betas_zero_snr=True, timestep_spacing="trailing")
    x0, noise, last = torch.randn(1, 4, 8, 8), torch.randn(1, 4, 8, 8), torch.tensor([999])
    assert float(rule.alphas(last)) < 1e-6
    output = rule.target(x0, noise, last)
    torch.testing.assert_close(rule.to_x0(output, rule.add_noise(x0, noise, last), last), x0)


@pytest.mark.parametrize(("spacing", "first"), [("trailing", 999), ("leading", 981), ("linspace", 999)])
def test_timesteps_follow_the_models_spacing(spacing: str, first: int) -> None:
    timesteps = schedule("epsilon", timestep_spacing=spacing).sampling_timesteps(50)
    assert len(timesteps) == 50
    assert timesteps[0] == first
    assert timesteps == sorted(timesteps, reverse=True)


@pytest.mark.parametrize("steps", [0, -1, 1001])
def test_impossible_step_counts_are_refused(steps: int) -> None:
    with pytest.raises(SettingsInvalid, match="from 1 to 1000"):
        schedule("epsilon").sampling_timesteps(steps)


def test_guidance_acts_at_every_timestep_unless_the_model_says_otherwise() -> None:
    scale, noisiest = torch.tensor([3.0, 1.0, 0.5]), torch.tensor(999)
    assert torch.equal(schedule("epsilon").guidance(scale, noisiest), scale)


def test_outside_its_interval_guidance_pushes_nothing_but_may_still_hold_back() -> None:
    rule = NoiseSchedule.of(DDIMScheduler(clip_sample=False), (0.1, 0.8))
    timesteps = torch.tensor([0, 99, 100, 799, 800, 999])
    assert rule.guidance(torch.full((6,), 3.0), timesteps).tolist() == [1, 1, 3, 3, 1, 1]
    assert rule.guidance(torch.tensor([3.0, 1.0, 0.5, 0.0]), torch.tensor(800)).tolist() == [1, 1, 0.5, 0]


def test_an_unknown_prediction_type_is_refused() -> None:
    with pytest.raises(ModelUnsupported, match="flow"):
        schedule("flow")
