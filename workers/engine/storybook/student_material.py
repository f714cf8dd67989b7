"""What the bundled model's students learn from: prompts, the teacher's pairs, and renders for a discriminator.

Pairs are drawn once for all students, shard by shard, by as many processes as there are; a shard that is there is not
drawn again, and pairs of another teacher, of other prompts or settings are refused.
"""

from __future__ import annotations

import logging
import math
import os
import threading
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context, parent_process
from pathlib import Path
from typing import Final

import torch

from workers.engine.base_model import BaseModel
from workers.engine.dmd.distillation import RealPictures
from workers.engine.dmd.teacher_pairs import PairPlan, draw_shard
from workers.engine.errors import TeacherPairsInvalid
from workers.engine.quiet import silence_loading
from workers.engine.storybook.captions import caption
from workers.engine.storybook.identity import split_rng
from workers.engine.storybook.judge_pictures import draw_compositions
from workers.engine.storybook.judges import to_tensor
from workers.engine.storybook.sampling import sample_composition
from workers.engine.storybook.text_training import sample_captions

log = logging.getLogger(__name__)

_FIRST_PROMPT: Final = 1 << 36
_FIRST_RENDER: Final = 1 << 37
_ENCODED: Final = 64
"""Renders that are encoded at once."""
_DRAWN: Final = {"cpu": 32, "cuda": 512}
"""Pairs that are drawn at once."""


@dataclass(frozen=True)
class Material:
    """What there is to learn from: pair k is of prompt k in turn; `renders` are of training compositions."""

    prompts: tuple[str, ...]
    pairs: int
    shards: int
    teacher_steps: int
    guidance: float
    renders: int = 0
    seed: int = 0

    @property
    def crowded(self) -> tuple[str, ...]:
        """The prompts of several things: one in six, and the hardest."""
        return tuple(prompt for prompt in self.prompts if any(word in prompt for word in (" and ", " next to ")))


@dataclass(frozen=True)
class Workplace:
    """Where the teacher lies and work goes, and what computes.

    `fast` is bf16 and, for students, compiled; `workers` are processes of one thread each; `until` is a time of
    `time.monotonic`, which all processes of a machine share.
    """

    teacher: Path
    work: Path
    device: str = "cpu"
    fast: bool = False
    workers: int = 1
    until: float = math.inf

    @property
    def pairs(self) -> Path:
        """Where the pairs lie."""
        return self.work / "pairs"

    def run(self, name: str) -> Path:
        """Where an unfinished student keeps what it needs to go on."""
        return self.work / "runs" / name

    def student(self, name: str) -> Path:
        """Where a finished student goes."""
        return self.work / "students" / name

    def is_over(self) -> bool:
        """Say whether the time is up."""
        return time.monotonic() >= self.until

    def load(self, folder: Path) -> BaseModel:
        """Open a model in float32: students learn in it, whatever they multiply in."""
        return BaseModel.load(folder, device=torch.device(self.device), dtype=torch.float32)


def own_prompts(teacher: Path, count: int) -> tuple[str, ...]:
    """Return the prompts in the model's folder, which are written there first if there are none."""
    path = teacher / "prompts.txt"
    if not path.exists():
        path.write_text("\n".join(dict.fromkeys(sample_captions(count, first=_FIRST_PROMPT))) + "\n")
    return tuple(path.read_text().splitlines())


def draw_pairs(place: Workplace, material: Material) -> None:
    """Draw the shards that are missing; raises Interrupted when the time is up."""
    plan = PairPlan.of(
        place.load(place.teacher),
        material.prompts,
        count=material.pairs,
        seed=material.seed,
        steps=material.teacher_steps,
        guidance=material.guidance,
        shards=material.shards,
    )
    if not (place.pairs / "plan.json").exists():
        place.pairs.mkdir(parents=True, exist_ok=True)
        plan.save(place.pairs)
    elif PairPlan.load(place.pairs).digest != plan.digest:
        raise TeacherPairsInvalid("the work in progress is on other pairs than these; move it out of the way")
    missing = plan.missing(place.pairs)
    workers = min(place.workers, len(missing))
    if place.workers == 1 or not missing:
        _draw_shards(place, missing)
        return
    with ProcessPoolExecutor(workers, mp_context=get_context("spawn"), initializer=settle) as pool:
        shares = [pool.submit(_draw_shards, place, missing[rank::workers]) for rank in range(workers)]
        for share in shares:
            share.result()


def seconds_for_pairs(place: Workplace) -> float:
    """Return how many seconds of one process all shards took together."""
    lines = (place.pairs / "seconds.txt").read_text().splitlines()
    return sum(float(line.split()[1]) for line in lines)


def real_pictures(base: BaseModel, count: int) -> RealPictures:
    """Return the latents of renders of training compositions, with captions that say all of them."""
    latents, prompts = [], []
    for first in range(0, count, _ENCODED):
        rngs = [split_rng("train", _FIRST_RENDER + k) for k in range(first, min(first + _ENCODED, count))]
        compositions = [sample_composition(rng) for rng in rngs]
        pixels = to_tensor(draw_compositions(compositions)).to(base.device)  # (B, 3, 64, 64)
        latents.append(base.autoencoder.encode(pixels).cpu())  # (B, C, H, W)
        described = zip(rngs, compositions, strict=True)
        prompts += [caption(rng, shown.scene, shown.instances, full=True) for rng, shown in described]
    return RealPictures(torch.cat(latents), tuple(prompts))


def settle() -> None:
    """Make a new process like the one that started it, and end it when that one is gone, in whatever way."""
    threading.Thread(target=_end_with_parent, name="orphan-watch", daemon=True).start()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    torch.set_num_threads(1)
    silence_loading()


def _end_with_parent() -> None:
    parent = parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


def _draw_shards(place: Workplace, shards: Sequence[int]) -> None:
    if not shards:
        return
    base, plan = place.load(place.teacher), PairPlan.load(place.pairs)
    for index in shards:
        started = time.monotonic()
        with torch.autocast(place.device, torch.bfloat16, enabled=place.fast):
            draw_shard(
                base,
                plan,
                index,
                place.pairs,
                batch_size=_DRAWN[place.device],
                on_progress=lambda _done, _due: None,
                should_stop=place.is_over,
            )
        seconds = time.monotonic() - started
        with (place.pairs / "seconds.txt").open("a") as file:
            file.write(f"{index} {seconds:.1f}\n")
        log.info("shard %d of %d in %.0f s", index, plan.shards, seconds)
