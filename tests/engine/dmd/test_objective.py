"""Identities and closed forms of the objective, on Gaussians where every score is known."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np
import pytest
import torch
from diffusers import DDIMScheduler
from torch import Tensor

from tests.engine.dmd.mixture import nothing
from workers.engine.dmd.context import Context
from workers.engine.dmd.objective import (
    TimestepRange,
    denoising_loss,
    distribution_matching_gradient,
    distribution_matching_loss,
    feature_loss,
    fool_loss,
    guided_x0,
    regression_loss,
    tell_apart_loss,
)
from workers.engine.schedule import NoiseSchedule, Prediction


def schedule(prediction: str = "epsilon", *, zero_snr: bool = False) -> NoiseSchedule:
    return NoiseSchedule.of(
        DDIMScheduler(
            beta_start=0.00085,
            beta_end=0.012,
            beta_schedule="scaled_linear",
            prediction_type=prediction,
            rescale_betas_zero_snr=zero_snr,
            timestep_spacing="trailing",
            clip_sample=False,
        )
    )


def samples(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def shifts(*means: float) -> Context:
    return Context(torch.tensor(means)[:, None, None])


@dataclass(frozen=True)
class Gaussian:
    """N(mean, spread^2) in every element, with the exact denoiser; the context shifts the mean."""

    mean: float
    spread: float
    schedule: NoiseSchedule

    def predict_x0(self, x_t: Tensor, timesteps: Tensor, context: Context, /) -> Tensor:
        a = self.schedule.alphas(timesteps)
        mean = self.mean + context.encodings[..., None]
        gain = a.sqrt() * self.spread**2 / (a * self.spread**2 + 1 - a)
        return mean + gain * (x_t - a.sqrt() * mean)


def test_autograd_gives_the_gradient_over_the_number_of_elements() -> None:
    x, gradient = samples(3, 4, 8, 8).requires_grad_(), samples(3, 4, 8, 8, seed=1)
    (given,) = torch.autograd.grad(distribution_matching_loss(x, gradient), x)
    torch.testing.assert_close(given, gradient / x.numel(), rtol=1e-6, atol=0)


def test_a_small_gradient_survives_where_the_published_form_of_the_loss_rounds_it_away() -> None:
    x, gradient = (100 + samples(2, 4, 8, 8)).requires_grad_(), 1e-6 * samples(2, 4, 8, 8, seed=1)
    (exact,) = torch.autograd.grad(distribution_matching_loss(x, gradient), x)
    (published,) = torch.autograd.grad(0.5 * (x - (x - gradient).detach()).square().mean(), x)
    torch.testing.assert_close(exact, gradient / x.numel(), rtol=1e-6, atol=0)
    assert (published * x.numel() - gradient).norm() > 0.5 * gradient.norm()


def test_equal_scores_leave_a_sample_where_it_is() -> None:
    x, seen = samples(3, 4, 8, 8), samples(3, 4, 8, 8, seed=1)
    assert not distribution_matching_gradient(x, seen, seen.clone()).any()


def test_descent_moves_samples_from_the_fake_distribution_to_the_real_one() -> None:
    rule = schedule()
    real, fake = Gaussian(2.0, 1.0, rule), Gaussian(-2.0, 1.0, rule)
    x, t, told = samples(64, 1, 4, 4) - 2, torch.full((64,), 500), nothing(64)
    x_t = rule.add_noise(x, samples(64, 1, 4, 4, seed=1), t)
    gradient = distribution_matching_gradient(x, real.predict_x0(x_t, t, told), fake.predict_x0(x_t, t, told))
    assert (gradient < 0).all()


def test_the_normaliser_is_each_samples_own_mean_distance_to_the_real_prediction() -> None:
    x, real, fake = samples(2, 4, 8, 8), samples(2, 4, 8, 8, seed=1), samples(2, 4, 8, 8, seed=2)
    together = distribution_matching_gradient(x, real, fake)
    for index in range(2):
        distance = (x[index] - real[index]).abs().mean()
        torch.testing.assert_close(together[index], (fake[index] - real[index]) / distance)
    farther = distribution_matching_gradient(x, x + 10 * (real - x), x + 10 * (fake - x))
    torch.testing.assert_close(farther, together, rtol=1e-4, atol=1e-5)  # whatever the scale of the disagreement


def test_a_sample_that_the_teacher_gives_back_unchanged_gets_a_finite_gradient() -> None:
    x = samples(1, 4, 8, 8)
    assert distribution_matching_gradient(x, x, x + 1e-7).isfinite().all()


def test_what_is_not_finite_stays_visible() -> None:
    x, broken = samples(2, 4, 8, 8), samples(2, 4, 8, 8, seed=1)
    broken[1, 0, 0, 0] = math.nan
    gradient = distribution_matching_gradient(x, samples(2, 4, 8, 8, seed=2), broken)
    assert gradient[0].isfinite().all()
    assert gradient[1].isnan().any()


@pytest.mark.parametrize("timestep", [20, 250, 500, 980])
def test_without_normaliser_and_noise_weight_it_is_the_gradient_of_the_kl_divergence(timestep: int) -> None:
    """p_real = N(m, s^2), G(z) = k z + b, all in closed form: dKL/db and dKL/dk from quadrature that is exact here."""
    m, s, k, b, rule = 0.7, 1.3, 0.6, -0.4, schedule()
    nodes, weights = np.polynomial.hermite_e.hermegauss(6)
    z, noise = (torch.tensor(grid.ravel()).view(-1, 1, 1, 1) for grid in np.meshgrid(nodes, nodes))
    weight = torch.tensor(np.outer(weights, weights).ravel() / (2 * math.pi)).view(-1, 1, 1, 1)
    x, t, told = k * z + b, torch.full((len(z),), timestep), nothing(len(z))
    x_t = rule.add_noise(x, noise, t)
    real = Gaussian(m, s, rule).predict_x0(x_t, t, told)
    gradient = distribution_matching_gradient(x, real, Gaussian(b, k, rule).predict_x0(x_t, t, told))
    unweighted = gradient * (x - real).abs()  # one element a sample, so the normaliser is its distance

    a = float(rule.alphas_cumprod[timestep])
    offset = torch.tensor(b, dtype=torch.float64, requires_grad=True)
    gain = torch.tensor(k, dtype=torch.float64, requires_grad=True)
    fake_variance, real_variance = a * gain**2 + 1 - a, a * s**2 + 1 - a
    divergence = 0.5 * ((fake_variance + a * (offset - m) ** 2) / real_variance - 1 + math.log(real_variance))
    by_offset, by_gain = torch.autograd.grad(divergence - 0.5 * fake_variance.log(), (offset, gain))

    level = a / (1 - a)
    torch.testing.assert_close(level * (weight * unweighted).sum(), by_offset, rtol=1e-5, atol=1e-8)
    torch.testing.assert_close(level * (weight * unweighted * z).sum(), by_gain, rtol=1e-5, atol=1e-8)


def test_a_student_that_is_the_real_distribution_gets_no_gradient_on_average() -> None:
    rule, count = schedule(), 20_000
    real = Gaussian(1.0, 0.5, rule)
    x, t = 1 + 0.5 * samples(count, 1, 1, 1), TimestepRange(20, 980).draw(count, torch.Generator().manual_seed(0))
    x_t = rule.add_noise(x, samples(count, 1, 1, 1, seed=1), t)
    exact = real.predict_x0(x_t, t, nothing(count))
    near = exact + 0.1 * samples(count, 1, 1, 1, seed=2)  # a fake score that is right but for noise
    gradient = distribution_matching_gradient(x, exact, near)
    off = distribution_matching_gradient(x, exact, Gaussian(1.2, 0.5, rule).predict_x0(x_t, t, nothing(count)))
    # p may be tiny, so that means of ratios have heavy tails; medians do not.
    assert abs(float(gradient.median())) < 0.02
    assert float(off.median()) > 0.1


def test_an_eps_models_rounding_in_half_precision_is_multiplied_by_fourteen_at_the_last_timestep() -> None:
    rule, t = schedule(), torch.full((8,), 999)
    x0, noise = samples(8, 4, 8, 8), samples(8, 4, 8, 8, seed=1)
    x_t = rule.add_noise(x0, noise, t)
    scale = float(((1 - rule.alphas(t)) / rule.alphas(t)).sqrt()[0])
    assert scale == pytest.approx(14.6, abs=0.05)
    rounding = (noise.bfloat16().float() - noise).std()
    error = (rule.to_x0(noise.bfloat16().float(), x_t, t) - x0).std()
    torch.testing.assert_close(error, scale * rounding, rtol=1e-2, atol=0)
    assert (rule.to_x0(noise, x_t, t) - x0).abs().max() < 2e-5


def test_a_v_model_without_terminal_signal_loses_nothing_at_the_last_timestep() -> None:
    rule, t = schedule("v_prediction", zero_snr=True), torch.full((8,), 999)
    v, x_t = samples(8, 4, 8, 8), samples(8, 4, 8, 8, seed=1)
    torch.testing.assert_close(rule.to_x0(v, x_t, t), -v, rtol=0, atol=1e-6)


def test_ranges_of_timesteps_are_drawn_whole_and_evenly() -> None:
    generator = torch.Generator().manual_seed(0)
    matched = TimestepRange.share(1000, 0.02, 0.98)
    assert (matched.first, matched.last) == (20, 980)
    assert TimestepRange.share(1000, 0.0, 1.0) == TimestepRange(0, 999)
    for span in (matched, TimestepRange(0, 999)):
        drawn = span.draw(200_000, generator)
        assert (int(drawn.min()), int(drawn.max())) == (span.first, span.last)
        tenths = torch.histc(drawn.float(), bins=10, min=span.first, max=span.last)
        assert (tenths / 20_000 - 1).abs().max() < 0.05


def test_a_guidance_of_one_is_the_conditional_prediction() -> None:
    rule = schedule()
    teacher, x_t, t = Gaussian(0.0, 1.0, rule), samples(3, 1, 4, 4), torch.tensor([100, 500, 900])
    told, blank = shifts(1.0, 2.0, 3.0), nothing(1)
    plain = teacher.predict_x0(x_t, t, told)
    assert torch.equal(guided_x0(teacher, x_t, t, told, blank=blank, guidance=1.0), plain)
    torch.testing.assert_close(guided_x0(teacher, x_t, t, told, blank=blank, guidance=1 + 1e-6), plain)
    without = teacher.predict_x0(x_t, t, nothing(3))
    guided = guided_x0(teacher, x_t, t, told, blank=blank, guidance=3.0)
    torch.testing.assert_close(guided, without + 3 * (plain - without))


def test_the_teacher_is_guided_where_its_schedule_says_so() -> None:
    rule = replace(schedule(), guidance_interval=(0.0, 0.8))
    teacher, x_t, t = Gaussian(0.0, 1.0, rule), samples(2, 1, 4, 4), torch.tensor([500, 900])
    told, blank = shifts(1.0, 2.0), nothing(1)
    plain, without = teacher.predict_x0(x_t, t, told), teacher.predict_x0(x_t, t, nothing(2))
    guided = guided_x0(teacher, x_t, t, told, blank=blank, guidance=3.0)
    torch.testing.assert_close(guided[0], (without + 3 * (plain - without))[0])
    torch.testing.assert_close(guided[1], plain[1])


@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction", "sample"])
@pytest.mark.parametrize("space", list(Prediction))
def test_the_fake_scores_error_is_the_same_however_the_network_predicts(prediction: str, space: Prediction) -> None:
    rule, t = schedule(prediction), torch.tensor([5, 300, 700, 990])
    x, noise, seen = samples(4, 4, 8, 8), samples(4, 4, 8, 8, seed=1), samples(4, 4, 8, 8, seed=2)
    x_t, a = rule.add_noise(x, noise, t), rule.alphas(t)
    eps = rule.to_eps(seen, x_t, t)
    output = {"epsilon": eps, "v_prediction": a.sqrt() * eps - (1 - a).sqrt() * seen, "sample": seen}[prediction]
    expected = {
        Prediction.EPSILON: (eps - noise).square().mean(),
        Prediction.V: (((x - seen).square()) / (1 - a)).mean(),
        Prediction.X0: (x - seen).square().mean(),
    }[space]
    loss = denoising_loss(rule, output, x, noise, t, space=space)
    torch.testing.assert_close(loss, expected, rtol=2e-3, atol=0)


def test_a_perfect_fake_score_has_no_loss_at_any_timestep_of_a_model_without_terminal_signal() -> None:
    rule, t = schedule("v_prediction", zero_snr=True), torch.tensor([0, 500, 999])
    x, noise = samples(3, 4, 8, 8), samples(3, 4, 8, 8, seed=1)
    for space in Prediction:
        assert float(denoising_loss(rule, rule.target(x, noise, t), x, noise, t, space=space)) == 0
        assert denoising_loss(rule, torch.zeros_like(x), x, noise, t, space=space).isfinite()


def test_regression_is_the_mean_squared_distance() -> None:
    x, y = samples(2, 4, 8, 8), samples(2, 4, 8, 8, seed=1)
    torch.testing.assert_close(regression_loss(x, y), (x - y).square().mean())


def test_features_are_compared_by_direction_place_by_place_and_layer_by_layer() -> None:
    wide, deep = samples(2, 4, 8, 8), samples(2, 16, 2, 2, seed=1)
    louder = torch.rand((2, 1, 8, 8), generator=torch.Generator().manual_seed(2)) + 1
    torch.testing.assert_close(feature_loss([wide, deep], [wide * louder, deep]), torch.tensor(0.0), rtol=0, atol=1e-4)
    torch.testing.assert_close(feature_loss([wide, deep], [-wide, deep]), torch.tensor(2.0), rtol=0, atol=1e-4)
    half = wide.clone()
    half[:, :, :4] *= -1  # opposite in half of the places
    torch.testing.assert_close(feature_loss([wide], [half]), torch.tensor(2.0), rtol=0, atol=1e-4)


def test_where_there_is_no_feature_at_all_there_is_a_finite_gradient() -> None:
    x = torch.zeros((1, 4, 2, 2), requires_grad=True)
    (gradient,) = torch.autograd.grad(feature_loss([x], [torch.ones_like(x)]), x)
    assert gradient.isfinite().all()


def test_the_adversarial_losses_pull_one_logit_in_opposite_directions_and_do_not_saturate() -> None:
    logits = torch.tensor([-4.0, 0.0, 4.0], requires_grad=True)
    (fooling,) = torch.autograd.grad(fool_loss(logits), logits)
    (telling,) = torch.autograd.grad(tell_apart_loss(logits, torch.zeros(3)), logits)
    assert (fooling < 0).all()
    assert (telling > 0).all()
    assert float(fooling[0]) == pytest.approx(-1 / 3, abs=0.01)  # a student that is seen through still learns
    assert float(tell_apart_loss(torch.zeros(2), torch.zeros(2))) == pytest.approx(2 * math.log(2))
