"""Distillations of the ring: the trainer as it is, from a network that has seen the exact scores to a one-step student.

What is watched is what can be known here and cannot on pictures: how the student covers the modes, and how much its
mean swings while it learns.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from tests.engine.dmd.mixture import SHAPE, Coverage, Ring, draw_teacher, nothing, ring_material, ring_schedule, start
from workers.engine.dmd import objective
from workers.engine.dmd.config import DistillationConfig
from workers.engine.dmd.networks import ScoreNetwork
from workers.engine.dmd.objective import TimestepRange
from workers.engine.dmd.student import draw
from workers.engine.dmd.trainer import DistillationTrainer

PAIRS, REAL = 2000, 4000
_WATCHED = 1024  # samples, of the same noise every time
_JUDGED = 4000
_WATCH_EVERY = 10

# Alone: a weight of its own for each goal. Rates far above those for pictures, as the networks are small.
MATCHING = DistillationConfig(
    batch_size=256,
    lr=1e-3,
    critic_lr=1e-3,
    guidance=1.0,
    regression_weight=0.0,
    feature_weight=0.0,  # its teacher is a closed form
    warmup_share=0.0,
    weight_decay=0.0,
    ema=0.99,
    key_locked=False,
)


@dataclass(frozen=True)
class Outcome:
    """What became of a student."""

    coverage: Coverage  # of its average
    swing: float  # of its mean: standard deviation over the last half of the steps, root mean square of coordinates
    map_distance: float  # mean distance from where the teacher's sampler takes the same noise


def distil_ring(config: DistillationConfig, *, seed: int) -> Outcome:
    """Distil the exact teacher by the trainer."""
    material = ring_material(
        pairs=PAIRS if config.regression_weight else 0, real=REAL if config.gan_weight else 0, seed=seed
    )
    trainer = DistillationTrainer(Ring(ring_schedule()), start(), material, config, seed=seed)
    watched, means = _noises(_WATCHED, config, seed=99), []
    while trainer.step_count < config.steps:
        trainer.step()
        if 2 * trainer.step_count >= config.steps and trainer.step_count % _WATCH_EVERY == 0:
            means.append(_drawn(trainer.student, watched, config).mean((0, 2, 3)))
    swing = torch.stack(means).var(0, correction=0).mean().sqrt()
    judged = _noises(_JUDGED, config, seed=7)
    x = _drawn(trainer.averaged, judged, config)
    taken = draw_teacher(Ring(ring_schedule()), judged[0])
    return Outcome(Coverage.of(x), float(swing), float((x - taken).flatten(1).norm(dim=1).mean()))


def descend_without_fake_score(config: DistillationConfig, *, seed: int) -> Tensor:
    """Follow the teacher's score alone, as if the student's samples needed no distribution; return its samples.

    Without a fake score nothing speaks for the noise that was added, so that the sample itself stands in its place.
    """
    ring, student, generator = Ring(ring_schedule()), start(), torch.Generator().manual_seed(seed)
    optimizer = torch.optim.AdamW(student.parameters(), lr=config.lr, weight_decay=0, fused=True)
    matched = TimestepRange.share(1000, config.least_noise, config.most_noise)
    told = nothing(config.batch_size)
    for _ in range(config.steps):
        noise = torch.randn((2, config.batch_size, *SHAPE), generator=generator)
        x, t = draw(student, noise[:1], config.student_timesteps, told), matched.draw(config.batch_size, generator)
        real = ring.predict_x0(ring.schedule.add_noise(x.detach(), noise[1], t), t, told)
        gradient = objective.distribution_matching_gradient(x, real, x)
        optimizer.zero_grad()
        torch.autograd.backward(objective.distribution_matching_loss(x, gradient))
        optimizer.step()
    return _drawn(student, _noises(_JUDGED, config, seed=7), config)


def _noises(count: int, config: DistillationConfig, *, seed: int) -> Tensor:
    return torch.randn(
        (len(config.student_timesteps), count, *SHAPE), generator=torch.Generator().manual_seed(seed)
    )  # (k, B, 2, 1, 1)


@torch.no_grad()
def _drawn(student: ScoreNetwork, noises: Tensor, config: DistillationConfig) -> Tensor:
    return draw(student, noises, config.student_timesteps, nothing(noises.shape[1]))
