"""Trains the judges on fresh renders of the "judge" split.

Identity: each batch holds groups of identities that share class, colour name and pattern, several renders of each;
every render must find its own identity's other renders among all identities of the batch (cosine softmax, leave one
out). What captions can say never helps, so the embedding has to carry what they cannot.

Renders are blurred, noised and passed through the autoencoder (with noisy latents) at random, so that rough pictures
are judged too. No judge ever sees a generated picture.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Final

import numpy as np
import torch
from diffusers import AutoencoderTiny
from torch import Tensor
from torch.nn import functional

from workers.engine.storybook.identity import Identity, Split, sample_identity, split_rng
from workers.engine.storybook.judges import AttributeJudge, IdentityJudge, PictureNet, Pictures, to_tensor
from workers.engine.storybook.render import render
from workers.engine.storybook.sampling import ATTRIBUTES, OUTDOORS, STUDIO, Mixture, labels, sample_composition
from workers.engine.storybook.world import Composition

log = logging.getLogger(__name__)

EMBEDDING: Final = 64
TEMPERATURE: Final = 0.08
SIGHTINGS: Final = Mixture(plain=0.3, accessory=0.35, pair=0.0, night=0.2, sketch=0.0)
"""How an identity is shown to its judge; a sketch has no colour to know it by."""


_BATCHES_PER_SEED: Final = 1_000_000
"""Batches are numbered on from here for each seed, so that another seed means other pictures."""


@dataclass(frozen=True)
class JudgeSettings:
    """How to train one judge."""

    minutes: float
    learning_rate: float = 2e-3
    groups: int = 4
    identities: int = 6
    renders: int = 3
    seed: int = 0


class Roughener:
    """Makes renders as rough as generated pictures may be, with the autoencoder and simple filters only."""

    def __init__(self, autoencoder: AutoencoderTiny, seed: int):
        self._autoencoder = autoencoder.eval().requires_grad_(False)
        self._rng = torch.Generator().manual_seed(seed)

    @torch.no_grad()
    def __call__(self, pictures: Tensor) -> Tensor:
        """(B, 3, 64, 64) in [-1, 1] -> the same shape and range."""
        half = len(pictures) // 2
        latents = self._autoencoder.encode(pictures[:half]).latents
        strength = 0.15 * torch.rand(half, 1, 1, 1, generator=self._rng)
        latents = latents + strength * torch.randn(latents.shape, generator=self._rng)
        rough = torch.cat([self._autoencoder.decode(latents).sample, pictures[half:]])
        blurred = functional.avg_pool2d(functional.pad(rough, (1, 1, 1, 1), mode="replicate"), 3, stride=1)
        share = (torch.rand(len(rough), 1, 1, 1, generator=self._rng) * 1.4 - 0.4).clamp(min=0)
        noise = torch.randn(rough.shape, generator=self._rng)
        noise = noise * 0.1 * torch.rand(len(rough), 1, 1, 1, generator=self._rng)
        return (rough + share * (blurred - rough) + noise).clamp(-1, 1)


def train_identity_judge(
    autoencoder: AutoencoderTiny, settings: JudgeSettings, *, start: IdentityJudge | None = None
) -> IdentityJudge:
    """Train the identity judge for the given time, going on from `start` if there is one."""
    torch.manual_seed(settings.seed)
    net, rough = start.net if start else PictureNet(EMBEDDING), Roughener(autoencoder, settings.seed)
    each = settings.renders

    def loss_of(batch: int) -> Tensor:
        pictures = _identity_batch(settings, batch)  # (I * R, 64, 64, 3)
        order = torch.randperm(len(pictures))
        mixed = torch.empty(len(pictures), EMBEDDING)
        mixed[order] = net(rough(to_tensor(pictures)[order]))
        return leave_one_out_loss(functional.normalize(mixed, dim=1).view(-1, each, EMBEDDING))

    _descend(net, settings, loss_of)
    return IdentityJudge(net)


def leave_one_out_loss(embeddings: Tensor) -> Tensor:
    """Cosine softmax of each render against all identities: (I, R, D) unit rows -> scalar.

    A render's own identity is represented by its other renders only, so that it can't find itself.
    """
    count, renders, _ = embeddings.shape
    sums = embeddings.sum(1)  # (I, D)
    others = functional.normalize(sums[:, None] - embeddings, dim=2)  # (I, R, D)
    scores = torch.einsum("ird,jd->irj", embeddings, functional.normalize(sums, dim=1))  # (I, R, I)
    own = torch.eye(count, dtype=torch.bool)[:, None].expand(-1, renders, -1)
    scores = torch.where(own, (embeddings * others).sum(2, keepdim=True), scores) / TEMPERATURE
    targets = torch.arange(count)[:, None].expand(-1, renders)
    return functional.cross_entropy(scores.reshape(-1, count), targets.reshape(-1))


def train_attribute_judge(
    autoencoder: AutoencoderTiny, settings: JudgeSettings, *, start: AttributeJudge | None = None
) -> AttributeJudge:
    """Train the attribute judge for the given time, going on from `start` if there is one."""
    torch.manual_seed(settings.seed)
    judge = start or AttributeJudge(PictureNet(sum(map(len, ATTRIBUTES.values()))), ATTRIBUTES)
    rough = Roughener(autoencoder, settings.seed)
    size = settings.groups * settings.identities * settings.renders

    def loss_of(batch: int) -> Tensor:
        pictures, compositions = attribute_pictures("judge", size, first=batch * size)
        order = torch.randperm(size)
        blocks = judge.split(judge.net(rough(to_tensor(pictures)[order])))
        said = [labels(compositions[k]) for k in order.tolist()]
        losses = []
        for name, block in blocks.items():
            targets = torch.tensor([ATTRIBUTES[name].index(label[name]) for label in said])
            losses.append(functional.cross_entropy(block, targets))
        return torch.stack(losses).sum()

    _descend(judge.net, settings, loss_of)
    return AttributeJudge(judge.net, ATTRIBUTES)


def attribute_pictures(split: Split, count: int, *, first: int = 0) -> tuple[Pictures, list[Composition]]:
    """Render pictures of a split, one in four in the studio."""
    compositions = [
        sample_composition(split_rng(split, first + k), STUDIO if k % 4 == 0 else OUTDOORS) for k in range(count)
    ]
    return np.stack([render(c.scene, c.instances, c.layout)[0] for c in compositions]), compositions


def lookalikes(split: Split, index: int, count: int) -> list[Identity]:
    """Draw identities of one class, colour and pattern: what captions cannot tell apart."""
    rng = split_rng(split, index)
    first = sample_identity(rng)
    rest = [sample_identity(rng, cls=first.cls, colour=first.colour, pattern=first.pattern) for _ in range(count - 1)]
    return [first, *rest]


def sightings(split: Split, index: int, identity: Identity, count: int) -> Pictures:
    """Render one identity in varied poses, places and accessories: (count, 64, 64, 3)."""
    rng = split_rng(split, index)
    views = [sample_composition(rng, SIGHTINGS, identity=identity) for _ in range(count)]
    return np.stack([render(view.scene, view.instances, view.layout)[0] for view in views])


def _identity_batch(settings: JudgeSettings, batch: int) -> Pictures:
    parts = []
    for group in range(settings.groups):
        index = batch * settings.groups + group
        for k, identity in enumerate(lookalikes("judge", index, settings.identities)):
            parts.append(sightings("judge", (1 << 34) + index * settings.identities + k, identity, settings.renders))
    return np.concatenate(parts)


def _descend(net: PictureNet, settings: JudgeSettings, loss_of: Callable[[int], Tensor]) -> None:
    """Descend until the time is used up, with warm-up and a linear fall of the learning rate."""
    optimiser = torch.optim.AdamW(
        net.train().parameters(), settings.learning_rate, betas=(0.9, 0.99), weight_decay=0.02
    )
    for step, spent in _until(settings.minutes):
        rate = settings.learning_rate * min(1.0, (step + 1) / 100, (1 - spent) * 1.5)
        for group in optimiser.param_groups:
            group["lr"] = rate
        loss = loss_of(settings.seed * _BATCHES_PER_SEED + step)
        optimiser.zero_grad()
        torch.autograd.backward(loss)
        torch.nn.utils.clip_grad_norm_(net.parameters(), 1.0)
        optimiser.step()
        if step % 100 == 0:
            log.info("step %d, loss %.4f", step, loss.item())


def _until(minutes: float) -> Iterator[tuple[int, float]]:
    """Count steps with the share of time spent, until it is all spent; at least one step."""
    started, step, spent = time.monotonic(), 0, 0.0
    while spent < 1:
        yield step, spent
        step, spent = step + 1, (time.monotonic() - started) / (minutes * 60)
