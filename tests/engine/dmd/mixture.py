"""Eight Gaussians on a ring, of unequal weight: a world in which every score is known and coverage can be counted.

A teacher of two numbers costs nothing, so a distillation that takes hours on pictures shows its character in seconds.
Samples are shaped as latents of one cell, (B, 2, 1, 1).
"""

from __future__ import annotations

import copy
import math
from dataclasses import dataclass
from functools import cache
from itertools import pairwise
from typing import cast

import torch
from diffusers import DDIMScheduler
from torch import Tensor, nn

from workers.engine.attention import Conditioning
from workers.engine.denoiser import Denoiser
from workers.engine.dmd.context import Context
from workers.engine.dmd.material import Material, Paired
from workers.engine.dmd.networks import ScoreNetwork
from workers.engine.dmd.objective import Predictor
from workers.engine.sampling import sample_ddim
from workers.engine.schedule import NoiseSchedule

SHAPE = (2, 1, 1)
RADIUS, SPREAD = 1.4, 0.105  # so that each coordinate has variance 1, as latents have
WEIGHTS = torch.tensor([0.22, 0.18, 0.15, 0.12, 0.11, 0.09, 0.08, 0.05])
_ANGLES = torch.arange(8) * math.pi / 4
MEANS = RADIUS * torch.stack([_ANGLES.cos(), _ANGLES.sin()], 1)  # (8, 2)
_NEAR = 4 * SPREAD
_COVERED = 0.25  # of its due share


def ring_schedule() -> NoiseSchedule:
    """As the bundled model has it: v-prediction, no signal at the last timestep."""
    return NoiseSchedule.of(
        DDIMScheduler(
            beta_start=0.00085,
            beta_end=0.012,
            beta_schedule="scaled_linear",
            prediction_type="v_prediction",
            rescale_betas_zero_snr=True,
            timestep_spacing="trailing",
            clip_sample=False,
        )
    )


@dataclass(frozen=True)
class Ring:
    """The mixture with its exact denoiser, which is all that a teacher has to be."""

    schedule: NoiseSchedule

    def sample(self, count: int, generator: torch.Generator) -> Tensor:
        """Draw real samples (count, 2, 1, 1)."""
        mode = torch.multinomial(WEIGHTS, count, replacement=True, generator=generator)
        return (MEANS[mode] + SPREAD * torch.randn((count, 2), generator=generator))[:, :, None, None]

    def predict_x0(self, x_t: Tensor, timesteps: Tensor, _context: Context, /) -> Tensor:
        """Return E[x0 | x_t]: each mode's own posterior mean, by how likely x_t is to come from it."""
        a = self.schedule.alphas(timesteps)[:, :, 0, 0]  # (B, 1)
        variance = a * SPREAD**2 + 1 - a  # (B, 1)
        offset = x_t[:, None, :, 0, 0] - a[..., None].sqrt() * MEANS  # (B, 8, 2)
        likely = torch.softmax(WEIGHTS.log() - offset.square().sum(2) / (2 * variance), 1)  # (B, 8)
        posterior = MEANS + (a.sqrt() * SPREAD**2 / variance)[..., None] * offset  # (B, 8, 2)
        return (likely[..., None] * posterior).sum(1)[:, :, None, None]


class Perceptron(ScoreNetwork):
    """A small network over a point and its timestep."""

    def __init__(self, schedule: NoiseSchedule, width: int = 96) -> None:
        super().__init__(schedule)
        self.register_buffer("frequencies", 2.0 ** torch.arange(4) * math.pi / 1000)
        sizes = [2 + 1 + 8, width, width, width]
        layers = [[nn.Linear(here, there), nn.SiLU()] for here, there in pairwise(sizes)]
        self.body = nn.Sequential(*(layer for pair in layers for layer in pair))
        self.last = nn.Linear(width, 2)

    def forward(self, x_t: Tensor, timesteps: Tensor, context: Context) -> Tensor:
        v: Tensor = self.last(self._features(x_t, timesteps))
        return v[:, :, None, None]

    def features(self, x_t: Tensor, timesteps: Tensor, context: Context) -> list[Tensor]:
        return [self._features(x_t, timesteps)[:, :, None, None]]

    def _features(self, x_t: Tensor, timesteps: Tensor) -> Tensor:
        phase = timesteps[:, None].float() * cast(Tensor, self.frequencies)
        when = torch.cat([timesteps[:, None] / 1000, phase.sin(), phase.cos()], 1)  # (B, 9)
        features: Tensor = self.body(torch.cat([x_t[:, :, 0, 0], when], 1))
        return features


class Nothing:
    """Contexts that say nothing."""

    def __init__(self, count: int) -> None:
        self._count = count

    def __len__(self) -> int:
        return self._count

    def take(self, indices: Tensor) -> Context:
        return nothing(len(indices))


def nothing(count: int) -> Context:
    """What a network is told of so many samples that it need not be told anything about."""
    return Context(torch.zeros((count, 1, 1)))


@cache
def _trained_start(steps: int, seed: int) -> Perceptron:
    """Fit a network to the ring's exact v, as a student starts from its teacher's weights."""
    ring, generator = Ring(ring_schedule()), torch.Generator().manual_seed(seed)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = Perceptron(ring.schedule)
    optimizer = torch.optim.AdamW(network.parameters(), lr=2e-3, weight_decay=0, fused=True)
    falling = torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, 0.02, steps)
    for _ in range(steps):
        t = torch.randint(1000, (256,), generator=generator)
        noise = torch.randn((256, *SHAPE), generator=generator)
        x_t = ring.schedule.add_noise(ring.sample(256, generator), noise, t)
        exact = ring.predict_x0(x_t, t, nothing(len(x_t)))
        v = ring.schedule.target(exact, ring.schedule.to_eps(exact, x_t, t), t)
        optimizer.zero_grad()
        torch.autograd.backward((network(x_t, t, nothing(len(x_t))) - v).square().mean())
        optimizer.step()
        falling.step()
    return network


def start(*, steps: int = 1200, seed: int = 0) -> Perceptron:
    """Return a fresh copy of the teacher's approximation, for a student to start from."""
    return copy.deepcopy(_trained_start(steps, seed))


@torch.no_grad()
def draw_teacher(teacher: Predictor[Context], noise: Tensor, *, steps: int = 50) -> Tensor:
    """Return what DDIM makes of noise (B, 2, 1, 1)."""
    empty = torch.zeros((len(noise), 1, 0))
    context = Conditioning(keys=empty, values=empty, widths=())
    return sample_ddim(
        cast(Denoiser, teacher),
        noise,
        context,
        context,
        steps=steps,
        guidance=[1.0] * len(noise),
        on_step=lambda: None,
        should_stop=lambda: False,
    )


def ring_material(*, pairs: int = 0, real: int = 0, seed: int = 0) -> Material:
    """Return the ring as material, with as many teacher pairs and real samples as asked for."""
    ring, generator = Ring(ring_schedule()), torch.Generator().manual_seed(seed)
    noise = torch.randn((pairs, *SHAPE), generator=generator)
    return Material(
        shape=SHAPE,
        contexts=Nothing(1),
        blank=nothing(1),
        pairs=Paired(draw_teacher(ring, noise), Nothing(pairs), noise=noise) if pairs else None,
        real=Paired(ring.sample(real, generator), Nothing(real)) if real else None,
    )


@dataclass(frozen=True)
class Coverage:
    """How samples cover the ring."""

    modes: int  # that get at least a quarter of the share they are due
    near: float  # share of samples within four standard deviations of a mode
    total_variation: float  # between the modes' shares and their weights
    distance: float  # sliced Wasserstein-2 to fresh real samples

    @classmethod
    def of(cls, x: Tensor) -> Coverage:
        points = x[:, :, 0, 0]  # (N, 2)
        away, nearest = torch.cdist(points, MEANS).min(1)
        shares = torch.bincount(nearest[away < _NEAR], minlength=8) / len(points)
        every = torch.bincount(nearest, minlength=8) / len(points)
        return cls(
            modes=int((shares >= _COVERED * WEIGHTS).sum()),
            near=float((away < _NEAR).float().mean()),
            total_variation=float((every - WEIGHTS).abs().sum() / 2),
            distance=_sliced_wasserstein(points),
        )


def _sliced_wasserstein(points: Tensor) -> float:
    generator = torch.Generator().manual_seed(1 << 20)
    real = Ring(ring_schedule()).sample(len(points), generator)[:, :, 0, 0]
    angles = torch.rand(64, generator=generator) * math.pi
    lines = torch.stack([angles.cos(), angles.sin()])  # (2, 64)
    along, real_along = (points @ lines).sort(0).values, (real @ lines).sort(0).values
    return float((along - real_along).square().mean().sqrt())
