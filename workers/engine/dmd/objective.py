"""The objective of distribution matching distillation: free functions on tensors, in the dtype of their arguments.

Sources: Yin et al. 2024, "One-step Diffusion with Distribution Matching Distillation" (DMD, arXiv 2311.18828), whose
equation numbers these are; Yin et al. 2024, "Improved Distribution Matching Distillation for Fast Image Synthesis"
(DMD2, arXiv 2405.14867) for the adversarial term; Ho & Salimans 2022 for guidance.

Dimensions:  B samples, C x H x W latents
Symbols:     x       the student's sample (B, C, H, W)       t, n     timestep (B,) and unit noise
             x_t     x noised to t                           a        alphas_cumprod[t]
             mu_real the guided teacher's x0 at x_t          mu_fake  the fake score's x0 at x_t
             p       mean |x - mu_real| of one sample        g        the gradient in x

At noise level t the gradient of KL(p_fake || p_real) in x is a / (1 - a) (mu_fake - mu_real) (Eq. 7). The weight of
Eq. 8 takes the noise level out and p in, sample by sample, so that what is computed (Alg. 2) is
g = (mu_fake - mu_real) / p. Descent moves x by -g: towards what the teacher sees in the noisy sample, away from what
the fake score sees there.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor

from workers.engine.dmd.context import Context
from workers.engine.schedule import NoiseSchedule, Prediction

Context_contra = TypeVar("Context_contra", contravariant=True)
# Where the teacher gives the sample back unchanged, p is 0 and so is any honest gradient.
_LEAST_DISTANCE = 1e-6
_LEAST_LENGTH = 1e-6  # squared, of features at one place


class Predictor(Protocol[Context_contra]):
    """Anything that sees clean latents in noisy ones; its context is what it is told about them."""

    @property
    def schedule(self) -> NoiseSchedule:
        """The noise schedule it was made for."""

    def predict_x0(self, x_t: Tensor, timesteps: Tensor, context: Context_contra, /) -> Tensor:
        """Return the clean latents (B, C, H, W) in float32."""


@dataclass(frozen=True)
class TimestepRange:
    """Timesteps from ``first`` to ``last``, both included."""

    first: int
    last: int

    @classmethod
    def share(cls, timesteps: int, least: float, most: float) -> TimestepRange:
        """Return a share of all timesteps: 0.02 to 0.98 of 1000 is 20 to 980."""
        return cls(round(least * timesteps), min(round(most * timesteps), timesteps - 1))

    def draw(self, count: int, generator: torch.Generator) -> Tensor:
        """Draw timesteps (count,), each as likely as any other."""
        return torch.randint(self.first, self.last + 1, (count,), generator=generator)


def guided_x0(
    teacher: Predictor[Context], x_t: Tensor, timesteps: Tensor, context: Context, *, blank: Context, guidance: float
) -> Tensor:
    """Return mu_real: the teacher's prediction for ``context``, pushed away from that for ``blank``, of one sample.

    Mixing x0 predictions equals mixing eps or v, since x0 is affine in them at a given x_t. As in the teacher's own
    pictures, it is pushed only where its schedule lets guidance act.
    """
    if guidance == 1:
        return teacher.predict_x0(x_t, timesteps, context)
    both = Context.concatenate([blank.expand(len(x_t)), context])  # of 2B samples
    predicted = teacher.predict_x0(torch.cat([x_t, x_t]), torch.cat([timesteps, timesteps]), both)
    without, conditional = predicted.chunk(2)  # (B, C, H, W) each
    weights = teacher.schedule.guidance(torch.full((len(x_t),), guidance, device=x_t.device), timesteps)
    return without + weights[:, None, None, None] * (conditional - without)


def distribution_matching_gradient(x: Tensor, real_x0: Tensor, fake_x0: Tensor) -> Tensor:
    """Return g (B, C, H, W) of Eq. 7 under the weight of Eq. 8; nothing is differentiated through.

    A number that is not finite stays so, for the trainer to see.
    """
    x, real_x0, fake_x0 = x.detach(), real_x0.detach(), fake_x0.detach()
    p = (x - real_x0).abs().mean((1, 2, 3), keepdim=True)  # (B, 1, 1, 1)
    return (fake_x0 - real_x0) / p.clamp_min(_LEAST_DISTANCE)


def distribution_matching_loss(x: Tensor, gradient: Tensor) -> Tensor:
    """Return a scalar whose gradient in ``x`` is ``gradient`` over the number of elements; its value means nothing.

    The published form, half the mean of (x - detach(x - g))^2, has the same gradient but loses the low bits of a
    small g to the sum with x.
    """
    return (x * gradient.detach()).mean()


def denoising_loss(
    schedule: NoiseSchedule, output: Tensor, x: Tensor, noise: Tensor, timesteps: Tensor, *, space: Prediction
) -> Tensor:
    """Return the fake score's loss: the mean squared error of its ``output`` at x_t, measured in ``space``.

    For one x_t the errors in eps, v and x0 are to each other as sqrt(a), 1 and sqrt(1 - a), so that another space is
    another weight of the timesteps. Measured in eps it is DMD's loss for text-to-image models (its Alg. 3).
    """
    target = schedule.target(x, noise, timesteps)
    scale = _error_scale(schedule, timesteps, space) / _error_scale(schedule, timesteps, schedule.prediction)
    return ((output - target) * scale).square().mean()


def _error_scale(schedule: NoiseSchedule, timesteps: Tensor, space: Prediction) -> Tensor:
    a = schedule.alphas(timesteps)  # (B, 1, 1, 1)
    match space:
        case Prediction.EPSILON:
            return a.sqrt()
        case Prediction.V:
            return torch.ones_like(a)
        case Prediction.X0:
            return (1 - a).sqrt()


def regression_loss(x: Tensor, teacher_latents: Tensor) -> Tensor:
    """Return the mean squared distance to what the teacher drew from the same noise.

    In latents, where the papers decode. Their ablation puts the plain distance close behind that of features
    (DMD, appendix I); here `feature_loss` is beside it.
    """
    return F.mse_loss(x, teacher_latents)


def feature_loss(ours: Sequence[Tensor], theirs: Sequence[Tensor]) -> Tensor:
    """Return how far two samples' features (B, C', H', W') are apart, on average over layers.

    A scalar, as LPIPS has it (Zhang et al. 2018, Eq. 1, without learned weights): features of one place are brought to
    length 1, their squared distance is summed over channels and averaged over places and samples. DMD takes LPIPS of
    decoded pictures; the teacher's own features of noised latents need neither a decoder nor another network, and
    they know what the prompt asks for.
    """
    distances = [(_unit(x) - _unit(y)).square().sum(1).mean() for x, y in zip(ours, theirs, strict=True)]
    return torch.stack(distances).mean()


def _unit(features: Tensor) -> Tensor:
    return features * (features.square().sum(1, keepdim=True) + _LEAST_LENGTH).rsqrt()


def fool_loss(fake_logits: Tensor) -> Tensor:
    """Return the student's adversarial loss, non-saturating: mean softplus(-D(x))."""
    return F.softplus(-fake_logits).mean()


def tell_apart_loss(fake_logits: Tensor, real_logits: Tensor) -> Tensor:
    """Return the discriminator's loss: mean softplus(D(x)) + mean softplus(-D(real))."""
    return F.softplus(fake_logits).mean() + F.softplus(-real_logits).mean()
