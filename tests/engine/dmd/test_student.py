"""How a student draws, while training and after."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from tests.engine.dmd.mixture import nothing
from tests.engine.dmd.test_objective import samples, schedule
from workers.engine.base_model import BaseModel
from workers.engine.conditioning import Prompt
from workers.engine.dmd.context import Context
from workers.engine.dmd.material import PromptContexts
from workers.engine.dmd.networks import UNetScore
from workers.engine.dmd.student import draw, seeded_noises
from workers.engine.sampling import initial_noise
from workers.engine.schedule import NoiseSchedule

TIMESTEPS = (999, 749, 499, 249)


class Recorder:
    """A student that notes what it is asked and answers with a fixed guess times a weight."""

    def __init__(self) -> None:
        self.schedule: NoiseSchedule = schedule("v_prediction", zero_snr=True)
        self.asked: list[tuple[Tensor, int, bool]] = []
        self.weight = torch.ones((), requires_grad=True)
        self.guess = samples(2, 4, 8, 8, seed=9)

    def predict_x0(self, x_t: Tensor, timesteps: Tensor, _context: Context, /) -> Tensor:
        self.asked.append((x_t, int(timesteps[0]), torch.is_grad_enabled()))
        return self.weight * self.guess


def test_one_step_is_the_prediction_at_pure_noise_whatever_timestep_the_student_is_told() -> None:
    for timestep in (999, 399):
        student, noise = Recorder(), samples(1, 2, 4, 8, 8)
        drawn = draw(student, noise, (timestep,), nothing(2))
        assert torch.equal(drawn, student.guess)
        ((x_t, told, _),) = student.asked
        assert torch.equal(x_t, noise[0])
        assert told == timestep


def test_each_further_step_sees_the_last_guess_under_fresh_noise() -> None:
    student, noises = Recorder(), samples(4, 2, 4, 8, 8)
    draw(student, noises, TIMESTEPS, nothing(2))
    assert [told for _, told, _ in student.asked] == list(TIMESTEPS)
    for step in (1, 2, 3):
        there = torch.full((2,), TIMESTEPS[step])
        expected = student.schedule.add_noise(student.guess, noises[step], there)
        torch.testing.assert_close(student.asked[step][0], expected)


def test_only_the_last_step_is_differentiated() -> None:
    student = Recorder()
    drawn = draw(student, samples(3, 2, 4, 8, 8), TIMESTEPS[:3], nothing(2))
    assert [with_gradient for *_, with_gradient in student.asked] == [False, False, True]
    (gradient,) = torch.autograd.grad(drawn.sum(), student.weight)
    torch.testing.assert_close(gradient, student.guess.sum())


@pytest.mark.parametrize("family", ["tiny", "tiny_xl"])
def test_the_served_model_and_the_trained_copy_draw_the_same(family: str, request: pytest.FixtureRequest) -> None:
    base: BaseModel = request.getfixturevalue(family)
    noises, told = seeded_noises([3, 4], (4, 8, 8), 2), (999, 499)
    context = PromptContexts(base.text, ["a cat"], size=base.native_size).take(torch.tensor([0, 0]))
    network = UNetScore.view_of(base.denoiser.unet, base.denoiser.schedule, autocast=False)
    with torch.no_grad():
        served = draw(base.denoiser, noises, told, base.conditioner.condition([Prompt("a cat")] * 2))
        torch.testing.assert_close(draw(network, noises, told, context), served, atol=1e-4, rtol=1e-4)


def test_a_seeds_first_noise_is_the_reference_samplers_and_each_later_one_is_its_own() -> None:
    noises = seeded_noises([5, 7], (4, 8, 8), 3)
    assert torch.equal(noises[0], initial_noise([5, 7], (4, 8, 8)))
    assert torch.equal(noises[:, 1], seeded_noises([7], (4, 8, 8), 3)[:, 0])
    assert torch.equal(noises[:2], seeded_noises([5, 7], (4, 8, 8), 2))
    assert not torch.equal(noises[0], noises[1])
