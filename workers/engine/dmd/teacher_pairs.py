"""Noise and what the guided teacher makes of it, for the regression loss: planned once, drawn shard by shard.

A plan names every pair, so that shards can be drawn in any order, on any machine, again after a crash, by jobs that
know nothing of each other. Files of a folder:

    plan.json                         the plan: teacher, sampler, prompts and seeds
    pairs-00002-of-00016.safetensors  shard 2: noise and latents (n, C, H, W) in float32, and the plan's digest

Source: DMD (arXiv 2311.18828); the teacher's sampler is deterministic, so a noise has one picture.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError
from torch import Tensor

from workers.engine.base_model import BaseModel
from workers.engine.conditioning import Prompt
from workers.engine.errors import Interrupted, TeacherPairsInvalid
from workers.engine.sampling import initial_noise, sample_ddim
from workers.engine.settings import require
from workers.engine.tensor_file import read_tensors, write_tensors

FORMAT = "lockstep-teacher-pairs/1"


@dataclass(frozen=True)
class PairPlan:
    """What is to be drawn: pair i is ``prompts[i]`` from the noise of ``seeds[i]``."""

    teacher: str  # its name, for people
    weights: str  # the hash of its U-Net
    encoder: str  # the fingerprint of its text encoder
    prompts: tuple[str, ...]
    seeds: tuple[int, ...]
    steps: int
    guidance: float
    guidance_interval: tuple[float, float]  # the shares of the timesteps at which it acts
    shards: int

    def __post_init__(self) -> None:
        """Refuse a plan that cannot be drawn, with SettingsInvalid."""
        require(len(self.prompts) == len(self.seeds), "a plan needs one seed for each prompt")
        require(1 <= self.shards <= max(1, len(self.prompts)), "a plan needs from one shard to one for each pair")

    @classmethod
    def of(
        cls, base: BaseModel, prompts: Sequence[str], *, count: int, seed: int, steps: int, guidance: float, shards: int
    ) -> PairPlan:
        """Plan ``count`` pairs over the prompts in turn, with the seeds from ``seed`` on."""
        return cls(
            teacher=base.name,
            weights=base.weights,
            encoder=base.fingerprint,
            prompts=tuple(prompts[index % len(prompts)] for index in range(count)),
            seeds=tuple(range(seed, seed + count)),
            steps=steps,
            guidance=guidance,
            guidance_interval=base.denoiser.schedule.guidance_interval,
            shards=shards,
        )

    @property
    def digest(self) -> str:
        """A short hash; shards of another plan do not fit this one."""
        return hashlib.sha256(json.dumps(asdict(self), sort_keys=True).encode()).hexdigest()[:16]

    def shard(self, index: int) -> range:
        """Return the pairs of shard ``index``: whole plans are cut into runs that differ by one in length."""
        count = len(self.prompts)
        return range(index * count // self.shards, (index + 1) * count // self.shards)

    def path(self, folder: Path, index: int) -> Path:
        """Return where shard ``index`` belongs."""
        return folder / f"pairs-{index:05d}-of-{self.shards:05d}.safetensors"

    def missing(self, folder: Path) -> list[int]:
        """Return the shards that are yet to be drawn."""
        return [index for index in range(self.shards) if not self.path(folder, index).exists()]

    def save(self, folder: Path) -> None:
        """Write the plan into its folder."""
        (folder / "plan.json").write_text(json.dumps(asdict(self)))

    @classmethod
    def load(cls, folder: Path) -> PairPlan:
        """Read a folder's plan; raises TeacherPairsInvalid."""
        try:
            facts = json.loads((folder / "plan.json").read_text())
            listed = {name: tuple(facts[name]) for name in ("prompts", "seeds", "guidance_interval")}
            return cls(**facts | listed)
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise TeacherPairsInvalid(f"not a plan of teacher pairs: {error}") from error


@dataclass(frozen=True)
class TeacherPairs:
    """Pairs (P, C, H, W) as they are learned from, in the plan's order."""

    prompts: tuple[str, ...]
    noise: Tensor
    latents: Tensor
    digest: str

    @classmethod
    def load(cls, base: BaseModel, folder: Path) -> TeacherPairs:
        """Read a folder's plan and all its shards; raises TeacherPairsInvalid if any is not whole or not ``base``'s."""
        plan = PairPlan.load(folder)
        require_teacher(plan, base)
        shards = [_read_shard(plan, index, folder) for index in range(plan.shards)]
        noise = torch.cat([noise for noise, _ in shards])
        return cls(plan.prompts, noise, torch.cat([latents for _, latents in shards]), plan.digest)


def draw_shard(
    base: BaseModel,
    plan: PairPlan,
    index: int,
    folder: Path,
    *,
    batch_size: int,
    on_progress: Callable[[int, int], None],
    should_stop: Callable[[], bool],
) -> Path:
    """Draw shard ``index`` of a plan and return its file, which is there whole or not at all.

    ``on_progress`` gets the sampling steps done and those due. ``should_stop`` is asked before every step and raises
    Interrupted. Raises TeacherPairsInvalid if ``base`` is not the plan's teacher.
    """
    require_teacher(plan, base)
    pairs = plan.shard(index)
    batches = [pairs[start : start + batch_size] for start in range(0, len(pairs), batch_size)]
    due, done = len(batches) * plan.steps, 0

    def on_step() -> None:
        nonlocal done
        done += 1
        on_progress(done, due)

    noises, latents = [], []
    for batch in batches:
        try:
            noise, drawn = _draw(base, plan, batch, on_step, should_stop)
        except Interrupted as interrupted:
            raise Interrupted(done) from interrupted
        noises.append(noise)
        latents.append(drawn)
    path = plan.path(folder, index)
    tensors = {"noise": torch.cat(noises), "latents": torch.cat(latents)}
    write_tensors(path, tensors, {"format": FORMAT, "plan": plan.digest, "shard": str(index)})
    return path


def require_teacher(plan: PairPlan, base: BaseModel) -> None:
    """Raise TeacherPairsInvalid unless the plan is for this very model."""
    own = (base.weights, base.fingerprint, base.denoiser.schedule.guidance_interval)
    if (plan.weights, plan.encoder, plan.guidance_interval) != own:
        raise TeacherPairsInvalid(
            f"the pairs are those of {plan.teacher!r}, with other weights or guidance than {base.name!r}"
        )


@torch.no_grad()
def _draw(
    base: BaseModel, plan: PairPlan, batch: range, on_step: Callable[[], None], should_stop: Callable[[], bool]
) -> tuple[Tensor, Tensor]:
    """Return noise and latents (B, C, H, W) of some pairs."""
    shape = base.latent_shape(base.native_size, base.native_size)
    noise = initial_noise([plan.seeds[pair] for pair in batch], shape)
    blank = base.conditioner.condition([Prompt("")])
    latents = sample_ddim(
        base.denoiser,
        noise.to(base.device),
        base.conditioner.condition([Prompt(plan.prompts[pair]) for pair in batch]),
        blank.select(torch.zeros(len(batch), dtype=torch.long, device=base.device)),
        steps=plan.steps,
        guidance=[plan.guidance] * len(batch),
        on_step=on_step,
        should_stop=should_stop,
    )
    return noise, latents.cpu()


def _read_shard(plan: PairPlan, index: int, folder: Path) -> tuple[Tensor, Tensor]:
    path = plan.path(folder, index)
    try:
        tensors, facts = read_tensors(path)
        noise, latents = tensors["noise"], tensors["latents"]
    except (OSError, SafetensorError, KeyError) as error:
        raise TeacherPairsInvalid(f"{path.name} cannot be read: {error}") from error
    if facts != {"format": FORMAT, "plan": plan.digest, "shard": str(index)}:
        raise TeacherPairsInvalid(f"{path.name} belongs to another plan")
    if noise.shape != latents.shape or len(noise) != len(plan.shard(index)) or not latents.isfinite().all():
        raise TeacherPairsInvalid(f"{path.name} does not hold the pairs it should")
    return noise, latents
