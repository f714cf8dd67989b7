"""How every rival is fitted: by the denoising error, on an individual's pictures and, if asked for, the model's own.

Dimensions: B batch, n pictures, C x H x W latents, N token positions, D text encoder width
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Final

import torch
from diffusers import UNet2DConditionModel
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional

from tests.benchmarks.subjects import images
from workers.engine.base_model import BaseModel
from workers.engine.errors import TrainingDiverged
from workers.engine.perfusion.training_pictures import prepare_pictures
from workers.engine.settings import falling_rate
from workers.engine.storybook.captions import with_article
from workers.engine.storybook.drawing import Drawing, draw
from workers.engine.storybook.facts import GUIDANCE
from workers.engine.text import TextEncoder

_PRIOR_PICTURES: Final = 32
_PRIOR_STEPS: Final = 25
_PRIOR_SEED: Final = 0


@dataclass(frozen=True)
class RivalConfig:
    """How a rival learns; with ``prior``, half of every batch are the base model's own pictures of the superclass."""

    steps: int = 400
    batch_size: int = 8
    lr: float = 1e-3
    word_lr: float = 5e-3
    decay_share: float = 0.5
    rank: int = 4
    prior: bool = False


@dataclass(frozen=True)
class Lesson:
    """Pictures to learn from, as latents (n, C, H, W), and the prompts that may go with each of them."""

    latents: Tensor
    prompts: tuple[str, ...]


@dataclass(frozen=True)
class Prior:
    """The base model's own pictures of a superclass, so as not to forget it, and what it cost to draw them."""

    lesson: Lesson
    samples: int  # that went through the U-Net
    seconds: float  # of processor time


_priors: dict[tuple[str, str, int], Prior] = {}  # they are the same for every training


def prior_pictures(base: BaseModel, superclass: str, config: RivalConfig) -> Prior:
    """Draw the superclass, once in a process; whoever times a training has to charge it for them."""
    count = min(_PRIOR_PICTURES, config.steps)  # a toy draws no more than it looks at
    key = (base.weights, superclass, count)
    if key not in _priors:
        started = time.process_time()
        with _counting(base.denoiser.unet) as sizes:
            drawn = draw(base, [with_article(superclass)] * count, Drawing(_PRIOR_STEPS, GUIDANCE, _PRIOR_SEED))
        lesson = Lesson(latents_of(base, images(drawn)), worded(base, superclass))
        _priors[key] = Prior(lesson, sum(sizes), time.process_time() - started)
    return _priors[key]


@contextmanager
def _counting(unet: UNet2DConditionModel) -> Iterator[list[int]]:
    """Note the size of every batch that goes through a U-Net."""
    sizes: list[int] = []

    def note(_unet: nn.Module, given: tuple[Tensor, ...], _output: object) -> None:
        sizes.append(len(given[0]))

    handle = unet.register_forward_hook(note)
    try:
        yield sizes
    finally:
        handle.remove()


def latents_of(base: BaseModel, photos: Sequence[Image.Image]) -> Tensor:
    """Return the latents (2n, C, H, W) of pictures and their mirror images."""
    config = replace(base.perfusion, masked=False)
    return prepare_pictures(base, photos, "", config, seed=0).latents


def worded(base: BaseModel, thing: str) -> tuple[str, ...]:
    """Return the prompts that every method learns with."""
    return tuple(template.format(thing) for template in base.perfusion.templates)


def lessons(
    base: BaseModel, photos: Sequence[Image.Image], superclass: str, thing: str, config: RivalConfig
) -> list[Lesson]:
    """Return what to learn and, if asked for, what not to forget."""
    own = Lesson(latents_of(base, photos), worded(base, thing))
    return [own, prior_pictures(base, superclass, config).lesson] if config.prior else [own]


def fit(
    base: BaseModel,
    unet: UNet2DConditionModel,
    lessons: Sequence[Lesson],
    learned: Mapping[str, tuple[Tensor, float]],
    config: RivalConfig,
    *,
    token: int | None,
    seed: int,
) -> None:
    """Minimise the denoising error; a batch holds equal shares of the lessons. ``token`` is the learned word's.

    Raises TrainingDiverged where the loss or what was learned is no longer finite.
    """
    generator, schedule = torch.Generator().manual_seed(seed), base.denoiser.schedule
    optimizer = torch.optim.AdamW([{"params": [tensor], "lr": lr} for tensor, lr in learned.values()], weight_decay=0)
    rates = [lr for _, lr in learned.values()]
    encode = _encoder(base.text, token, learned["word"][0] if token is not None else None)
    for step in range(config.steps):
        for rate, group in zip(rates, optimizer.param_groups, strict=True):
            group["lr"] = rate * falling_rate(step, config.steps, config.decay_share)
        x0, prompts = _batch(lessons, config.batch_size // len(lessons), generator)  # (B, C, H, W)
        timesteps = torch.randint(schedule.timesteps, (len(x0),), generator=generator)
        noise = torch.randn(x0.shape, generator=generator)
        noisy = schedule.add_noise(x0, noise, timesteps)
        output = unet(noisy, timesteps, encoder_hidden_states=encode(prompts)).sample
        optimizer.zero_grad()
        loss = functional.mse_loss(output.float(), schedule.target(x0, noise, timesteps))
        value = float(loss.detach())
        if not math.isfinite(value):
            raise TrainingDiverged(f"the loss is {value} at step {step}")
        loss.backward()
        optimizer.step()
    if not all(bool(tensor.isfinite().all()) for tensor, _ in learned.values()):
        raise TrainingDiverged("what was learned is not finite")


def _batch(lessons: Sequence[Lesson], share: int, generator: torch.Generator) -> tuple[Tensor, list[str]]:
    """Draw as many pictures of every lesson, and a prompt for each."""
    latents, prompts = [], []
    for lesson in lessons:
        latents.append(lesson.latents[torch.randint(len(lesson.latents), (share,), generator=generator)])
        picked = torch.randint(len(lesson.prompts), (share,), generator=generator).tolist()
        prompts += [lesson.prompts[k] for k in picked]
    return torch.cat(latents), prompts


def _encoder(text: TextEncoder, token: int | None, word: Tensor | None) -> Callable[[Sequence[str]], Tensor]:
    """Return what encodes prompts to (B, N, D), each only once, differentiably in the learned word."""

    def encode(prompts: Sequence[str]) -> Tensor:
        distinct = list(dict.fromkeys(prompts))
        rows = [text.row(text.tokens(prompt)) for prompt in distinct]
        places = {
            (k, position): [word]
            for k, row in enumerate(rows)
            for position, here in enumerate(row)
            if word is not None and here == token
        }
        return text.encode(rows, places)[[distinct.index(prompt) for prompt in prompts]]

    return encode
