"""Trainings of one base model, of any tenants, in one batch: each with its own optimiser, generator and end.

Concepts live in the conditioning, which is per sample, so trainings share the frozen networks' passes and nothing else:
a sample's loss depends on its own concept alone, and the gradient of the sum is each one's own. Company changes a
training's numbers by rounding only (the networks' sums run in another order at another batch size).

One step: encode everybody's templates with v at the placeholder; move every i* (no gradient runs through it); edit the
keys and values of all layers; predict; each one's masked loss; AdamW with a learning rate each for o* and v.

Dimensions:  B samples of all trainings, U prompts of all trainings, C x H x W latents
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from workers.engine.errors import TrainingDiverged
from workers.engine.perfusion.trainer import ConceptTrainer, Draw


def step_together(trainers: Sequence[ConceptTrainer]) -> list[TrainingDiverged | None]:
    """Take one step of every training; return, for each, why it cannot go on, or None."""
    base, draws = trainers[0].base, [trainer.draw() for trainer in trainers]
    encoded = base.conditioner.encode([prompt for draw in draws for prompt in draw.prompts])
    which, first = [], 0
    for trainer, draw in zip(trainers, draws, strict=True):
        last = first + len(draw.prompts)
        trainer.follow(encoded.rows[first:last], encoded.value_encodings[first:last], draw.which)
        which.append(draw.which + first)
        first = last
    conditioning = base.conditioner.project(encoded).select(torch.cat(which))
    noisy, timesteps = torch.cat([draw.noisy for draw in draws]), torch.cat([draw.timesteps for draw in draws])
    output = base.denoiser.output(noisy, timesteps, conditioning)  # (B, C, H, W)
    losses = _losses(output, draws)
    torch.autograd.backward(torch.stack(losses).sum())
    return [_learn(trainer, loss) for trainer, loss in zip(trainers, losses, strict=True)]


def masked_squared_error(output: Tensor, target: Tensor, mask: Tensor) -> Tensor:
    """Return the error of (B, C, H, W) weighted by the mask (B, 1, H, W), summing to the mean over pictures.

    Each picture is normalised by its own mask, so that a small thing counts as much as a large one.
    """
    error = (output - target).square().mean(1, keepdim=True)  # (B, 1, H, W)
    return ((error * mask).sum((1, 2, 3)) / mask.sum((1, 2, 3))).mean()


def _losses(output: Tensor, draws: Sequence[Draw]) -> list[Tensor]:
    parts = output.split_with_sizes([len(draw.noisy) for draw in draws])
    return [masked_squared_error(part, draw.target, draw.masks) for part, draw in zip(parts, draws, strict=True)]


def _learn(trainer: ConceptTrainer, loss: Tensor) -> TrainingDiverged | None:
    try:
        trainer.learn(loss)
    except TrainingDiverged as error:
        return error
    return None
