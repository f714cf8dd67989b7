"""Trains the judges on renders of the "judge" split, never on a generated picture.

Attributes: the cross entropy of every attribute that a picture can show. Identity: each batch holds groups of
lookalikes, several renders of each; every render must find its own identity's other renders among all identities of
the batch (cosine softmax, leave one out). What captions can say never helps, so the embedding has to carry what they
cannot.

Half of a batch is made rough, as generated pictures may be; the other half stays exact. The networks that are kept
are running means of those that descend.
"""

from __future__ import annotations

import copy
import logging
import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from diffusers import AutoencoderTiny
from torch import Tensor
from torch.nn import functional

from workers.engine.storybook.judge_pictures import LOOKALIKES, NOT_SHOWN, RENDERS, load_arrays
from workers.engine.storybook.judges import AttributeJudge, IdentityJudge, PictureNet, to_tensor
from workers.engine.storybook.roughening import Roughener
from workers.engine.storybook.sampling import ATTRIBUTES

log = logging.getLogger(__name__)

EMBEDDING: Final = 64
TEMPERATURE: Final = 0.08
_WARMUP_STEPS: Final = 200
_SAVE_EVERY: Final = 250


@dataclass(frozen=True)
class JudgeSettings:
    """How to train one judge: for `minutes` of processor time, on batches of `batch` pictures or `groups` lookalikes.

    `fast` runs the network in bf16, which pays on CPUs with AMX and slows others down.
    """

    minutes: float
    batch: int = 96
    groups: int = 3
    learning_rate: float = 3e-3
    weight_decay: float = 0.02
    ema: float = 0.998
    seed: int = 0
    fast: bool = False


def train_attribute_judge(
    autoencoder: AutoencoderTiny, shards: Path, settings: JudgeSettings, *, checkpoint: Path
) -> AttributeJudge:
    """Train the attribute judge until its time is spent, going on from the checkpoint if there is one."""
    torch.manual_seed(settings.seed)
    judge = AttributeJudge(PictureNet(sum(map(len, ATTRIBUTES.values()))), ATTRIBUTES)
    pixels, answers = load_arrays(shards, "attributes", "pixels"), load_arrays(shards, "attributes", "targets")
    rough = Roughener(autoencoder)

    def loss_of(net: PictureNet, rng: torch.Generator) -> Tensor:
        places = _places(pixels, settings.batch, rng)
        pictures = to_tensor(np.stack([pixels[shard][row] for shard, row in places]))
        wanted = torch.from_numpy(np.stack([answers[shard][row] for shard, row in places])).long()
        return attribute_loss(judge.split(net(rough(pictures, rng))), wanted)

    return AttributeJudge(_descend(judge.net, settings, checkpoint, loss_of), ATTRIBUTES)


def attribute_loss(blocks: dict[str, Tensor], wanted: Tensor) -> Tensor:
    """Sum each attribute's mean cross entropy: blocks (B, values) and answers (B, A) -> scalar.

    Answers that are not shown count neither above nor below the line, even where a batch shows none of them.
    """
    losses = [
        functional.cross_entropy(block, answers, ignore_index=NOT_SHOWN, reduction="sum")
        / (answers != NOT_SHOWN).sum().clamp(min=1)
        for block, answers in zip(blocks.values(), wanted.unbind(1), strict=True)
    ]
    return torch.stack(losses).sum()


def train_identity_judge(
    autoencoder: AutoencoderTiny, shards: Path, settings: JudgeSettings, *, checkpoint: Path
) -> IdentityJudge:
    """Train the identity judge until its time is spent, going on from the checkpoint if there is one."""
    torch.manual_seed(settings.seed)
    pixels, rough = load_arrays(shards, "identity", "pixels"), Roughener(autoencoder)

    def loss_of(net: PictureNet, rng: torch.Generator) -> Tensor:
        groups = np.stack([pixels[shard][row] for shard, row in _places(pixels, settings.groups, rng)])
        pictures = to_tensor(groups.reshape(-1, *groups.shape[3:]))
        embeddings = functional.normalize(net(rough(pictures, rng)), dim=1)
        return leave_one_out_loss(embeddings.view(settings.groups * LOOKALIKES, RENDERS, EMBEDDING))

    return IdentityJudge(_descend(PictureNet(EMBEDDING), settings, checkpoint, loss_of))


def leave_one_out_loss(embeddings: Tensor) -> Tensor:
    """Cosine softmax of each render against all identities: (I, R, D) unit rows -> scalar.

    A render's own identity is represented by its other renders only, so that it can't find itself.
    """
    count, renders, _ = embeddings.shape
    sums = embeddings.sum(1)  # (I, D)
    others = functional.normalize(sums[:, None] - embeddings, dim=2)  # (I, R, D)
    scores = torch.einsum("ird,jd->irj", embeddings, functional.normalize(sums, dim=1)).float()  # (I, R, I)
    own = torch.eye(count, dtype=torch.bool)[:, None].expand(-1, renders, -1)
    scores = torch.where(own, (embeddings * others).sum(2, keepdim=True), scores) / TEMPERATURE
    targets = torch.arange(count)[:, None].expand(-1, renders)
    return functional.cross_entropy(scores.reshape(-1, count), targets.reshape(-1))


def _places(arrays: list[Any], count: int, rng: torch.Generator) -> list[tuple[int, int]]:
    """Draw rows of shards, each as likely as any other of its shard, and each shard as likely as the next."""
    shards = torch.randint(len(arrays), (count,), generator=rng).tolist()
    return [(shard, int(torch.randint(len(arrays[shard]), (), generator=rng))) for shard in shards]


def _descend(
    net: PictureNet,
    settings: JudgeSettings,
    checkpoint: Path,
    loss_of: Callable[[PictureNet, torch.Generator], Tensor],
) -> PictureNet:
    """Descend until the time is spent, the learning rate falling with it, and return the running mean of the net.

    A step draws from a generator of its own number, so that a run that was interrupted goes on as it would have.
    """
    run = _Run(net, settings)
    run.load(checkpoint)
    while run.steps == 0 or run.seconds < 60 * settings.minutes:
        started = time.process_time()
        loss = run.step(loss_of)
        run.seconds += time.process_time() - started
        if run.steps % _SAVE_EVERY == 0:
            log.info("step %d, %.1f minutes, loss %.4f", run.steps, run.seconds / 60, loss.item())
            run.save(checkpoint)
    run.save(checkpoint)
    return run.mean


class _Run:
    """What a descent needs to go on: the net, its running mean, the optimiser's state and the time spent."""

    def __init__(self, net: PictureNet, settings: JudgeSettings):
        self.net, self.settings = net.train(), settings
        self.mean = copy.deepcopy(net).eval()
        self.optimiser = torch.optim.AdamW(net.parameters(), betas=(0.9, 0.99), weight_decay=settings.weight_decay)
        self.steps, self.seconds = 0, 0.0

    def step(self, loss_of: Callable[[PictureNet, torch.Generator], Tensor]) -> Tensor:
        rng = torch.Generator().manual_seed((self.settings.seed << 32) + self.steps)
        with torch.autocast("cpu", torch.bfloat16, enabled=self.settings.fast):
            loss = loss_of(self.net, rng)
        for group in self.optimiser.param_groups:
            group["lr"] = self._learning_rate()
        self.optimiser.zero_grad()
        torch.autograd.backward(loss)
        torch.nn.utils.clip_grad_norm_(self.net.parameters(), 1.0)
        self.optimiser.step()
        self._follow()
        self.steps += 1
        return loss.detach()

    def _learning_rate(self) -> float:
        spent = min(1.0, self.seconds / (60 * self.settings.minutes))
        fall = 0.5 * (1 + math.cos(math.pi * spent))
        return self.settings.learning_rate * min(fall, (self.steps + 1) / _WARMUP_STEPS)

    @torch.no_grad()
    def _follow(self) -> None:
        keep = min(self.settings.ema, (1 + self.steps) / (10 + self.steps))
        for mean, value in zip(self.mean.state_dict().values(), self.net.state_dict().values(), strict=True):
            if mean.is_floating_point():
                mean.lerp_(value, 1 - keep)

    def save(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        draft = path.with_suffix(".draft")
        networks = {"net": self.net.state_dict(), "mean": self.mean.state_dict()}
        state = {**networks, "optimiser": self.optimiser.state_dict(), "steps": self.steps, "seconds": self.seconds}
        torch.save(state, draft)
        draft.replace(path)

    def load(self, path: Path) -> None:
        if not path.exists():
            return
        state = torch.load(path, weights_only=True)
        self.net.load_state_dict(state["net"])
        self.mean.load_state_dict(state["mean"])
        self.optimiser.load_state_dict(state["optimiser"])
        self.steps, self.seconds = state["steps"], state["seconds"]
