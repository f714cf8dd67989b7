"""Learning on the bundled model: a concept knows its individual better than its class word does."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from workers.engine.base_model import BaseModel
from workers.engine.conditioning import ConceptUse, Prompt
from workers.engine.perfusion.cohort import masked_squared_error, step_together
from workers.engine.perfusion.trainer import ConceptTrainer
from workers.engine.perfusion.training_pictures import prepare_pictures
from workers.engine.pictures import to_pixels
from workers.engine.storybook.identity import Identity, sample_identity, split_rng
from workers.engine.storybook.portrait import portraits

STEPS = 20


@pytest.fixture(scope="module")
def teapot() -> Identity:
    """A purple teapot with dots and a handle of some other colour."""
    return sample_identity(split_rng("held-out", 1), cls="teapot", colour="purple", pattern="spotted")


def pictures(identity: Identity, count: int, *, seed: int) -> list[Image.Image]:
    return [Image.fromarray(np.asarray(portrait.pixels)) for portrait in portraits(identity, count, seed=seed)]


@torch.no_grad()
def unseen_loss(base: BaseModel, latents: Tensor, prompt: Prompt) -> float:
    """The denoising error on latents (n, C, H, W), averaged over fixed noise at five noise levels."""
    schedule, generator = base.denoiser.schedule, torch.Generator().manual_seed(0)
    conditioning = base.conditioner.condition([prompt] * len(latents))
    losses = []
    for level in (100, 300, 500, 700, 900):
        timesteps, noise = torch.full((len(latents),), level), torch.randn(latents.shape, generator=generator)
        output = base.denoiser.output(schedule.add_noise(latents, noise, timesteps), timesteps, conditioning)
        target = schedule.target(latents, noise, timesteps)
        losses.append(float(masked_squared_error(output, target, torch.ones_like(latents[:, :1]))))
    return sum(losses) / len(losses)


def test_a_few_steps_on_five_pictures_beat_the_class_word_on_unseen_pictures(
    storybook: BaseModel, teapot: Identity
) -> None:
    config = replace(storybook.perfusion, batch_size=4)
    prepared = prepare_pictures(storybook, pictures(teapot, 5, seed=1), "teapot", config, seed=0)
    training = ConceptTrainer(storybook, prepared, "teapot", config, seed=0)
    unseen = storybook.autoencoder.encode(to_pixels(pictures(teapot, 4, seed=2), 64))
    use = ConceptUse("tom", training.concept, gate_bias=0.6, gate_temperature=0.15)
    for _ in range(STEPS):
        step_together([training])
    assert unseen_loss(storybook, unseen, Prompt("a <tom>", (use,))) < unseen_loss(
        storybook, unseen, Prompt("a teapot")
    )


def test_masks_find_the_thing_on_the_bundled_model(storybook: BaseModel, teapot: Identity) -> None:
    taken = portraits(teapot, 4, seed=3)
    images = [Image.fromarray(np.asarray(portrait.pixels)) for portrait in taken]
    prepared = prepare_pictures(storybook, images, "teapot", storybook.perfusion, seed=0)
    truth = torch.stack([torch.from_numpy(np.asarray(portrait.mask) > 0) for portrait in taken])[:, None]
    inside = torch.nn.functional.avg_pool2d(truth.float(), 4) > 0.5
    share = (prepared.masks[:4] * inside).sum() / prepared.masks[:4].sum()
    assert float(share) > 2 * float(inside.float().mean())  # a uniform mask has its share of the area
