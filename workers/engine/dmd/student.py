"""How a student draws: one step from pure noise, or a few, each from the last one's guess noised afresh.

Source: DMD2 (arXiv 2405.14867). Training draws its samples by the same loop and so meets the inputs that
inference will ("backward simulation"); noised real latents, which it will never see again, play no part.
Dimensions:  B samples, C x H x W latents, k steps
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

import torch
from torch import Tensor

from workers.engine.dmd.objective import Predictor

Context = TypeVar("Context")


def draw(student: Predictor[Context], noises: Tensor, timesteps: Sequence[int], context: Context) -> Tensor:
    """Return the x0 (B, C, H, W) seen at the last of ``timesteps`` (k of them, noisy to clean).

    ``noises`` (k, B, C, H, W): the first is the start, pure at whatever timestep the student is told; each other noises
    a guess to its step. Gradients, where they are on, run through the last step alone.
    """
    x_t, schedule = noises[0], student.schedule
    with torch.no_grad():
        for here, there, noise in zip(timesteps[:-1], timesteps[1:], noises[1:], strict=True):
            x0 = student.predict_x0(x_t, _each(x_t, here), context)
            x_t = schedule.add_noise(x0, noise, _each(x_t, there))
    return student.predict_x0(x_t, _each(x_t, timesteps[-1]), context)


def seeded_noises(seeds: Sequence[int], shape: tuple[int, int, int], steps: int) -> Tensor:
    """Return noises (k, B, C, H, W) for `draw`, each sample's from its own seed alone, on the CPU.

    The first of them is what the seed means to the reference sampler too (`sampling.initial_noise`).
    """
    generators = [torch.Generator().manual_seed(seed) for seed in seeds]
    drawn = [torch.stack([torch.randn(shape, generator=generator) for generator in generators]) for _ in range(steps)]
    return torch.stack(drawn)


def _each(x: Tensor, timestep: int) -> Tensor:
    return torch.full((len(x),), timestep, device=x.device)  # (B,)
