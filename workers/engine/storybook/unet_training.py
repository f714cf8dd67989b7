"""Trains the U-Net on the rendered cache, with the text encoder and the autoencoder frozen.

On CPUs one single-threaded process per core is fastest: each steps alone, and every few steps their parameters are
averaged (local SGD), so that a core taken by another job does not stall the rest at every step. The schedule follows
the time spent, not the steps made, because only time is promised.
"""

from __future__ import annotations

import contextlib
import json
import logging
import math
import os
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from diffusers import StableDiffusionPipeline
from torch import Tensor

from workers.engine.storybook.data import load_set
from workers.engine.storybook.diffusion import Diffusion, channel_weights, sample_timesteps
from workers.engine.storybook.networks import load_pipeline, save_pipeline, token_ids

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class UnetSettings:
    """How to train; times in minutes and seconds of wall clock."""

    minutes: float
    batch: int = 16
    learning_rate: float = 1e-3
    warmup_steps: int = 300
    decay_share: float = 0.25
    weight_decay: float = 0.01
    ema: float = 0.9985
    average_every: int = 8
    studio_share: float = 0.25
    studio_only_share: float = 0.0
    object_weight: float = 1.5
    caption_dropout: float = 0.10
    checkpoint_seconds: float = 240.0
    seed: int = 0
    device: str = "cpu"


@dataclass
class Progress:
    """How far a run has come; saved with every checkpoint."""

    steps: int = 0
    samples: int = 0
    seconds: float = 0.0
    losses: list[float] = field(default_factory=list)


class Batches:
    """Draws mixed batches of pictures, masks and token ids from the two sets of the cache."""

    def __init__(self, cache: Path, pipeline: StableDiffusionPipeline, settings: UnetSettings, rank: int):
        self._sets = [load_set(cache, name) for name in ("studio", "outdoors")]
        self._ids = [[self._tokenise(pipeline, shard.captions) for shard in shards] for shards in self._sets]
        self._empty = token_ids(pipeline.tokenizer, [""])[0]
        self._settings = settings
        self._rank = rank

    @staticmethod
    def _tokenise(pipeline: StableDiffusionPipeline, captions: list[list[str]]) -> Tensor:
        flat = [text for texts in captions for text in texts]
        ids = token_ids(pipeline.tokenizer, flat)
        return ids.view(len(captions), -1, ids.shape[1]).to(torch.int16)

    def draw(self, progress: Progress, generator: torch.Generator) -> tuple[Tensor, Tensor, Tensor]:
        """Return pixels (B, 3, 64, 64) in [-1, 1], masks (B, 1, 16, 16) in [0, 1] and token ids (B, 32)."""
        settings = self._settings
        early = progress.seconds < settings.studio_only_share * settings.minutes * 60
        studio_share = 1.0 if early else settings.studio_share
        rows = [self._one(studio_share, generator) for _ in range(settings.batch)]
        pixels = torch.stack([row[0] for row in rows]).permute(0, 3, 1, 2).float() / 127.5 - 1
        masks = torch.stack([row[1] for row in rows])[:, None].float() / 255
        ids = torch.stack([row[2] for row in rows]).long()
        silent = torch.rand(settings.batch, generator=generator) < settings.caption_dropout
        return pixels, masks, torch.where(silent[:, None], self._empty[None], ids)

    def _one(self, studio_share: float, generator: torch.Generator) -> tuple[Tensor, Tensor, Tensor]:
        u = torch.rand(4, generator=generator).tolist()
        which = 0 if u[0] < studio_share else 1
        shards = self._sets[which]
        number = int(u[1] * len(shards))
        shard, ids = shards[number], self._ids[which][number]
        k = int(u[2] * len(shard.pixels))
        pixels, mask = torch.from_numpy(shard.pixels[k].copy()), torch.from_numpy(shard.masks[k].copy())
        return pixels, mask, ids[k, int(u[3] * ids.shape[1])]


class UnetTrainer:
    """One process of a run: its networks, its optimiser and, on rank 0, the checkpoints and the log."""

    def __init__(self, pipeline: StableDiffusionPipeline, settings: UnetSettings, folder: Path, rank: int, ranks: int):
        self.settings, self.folder, self.rank, self.ranks = settings, folder, rank, ranks
        self.device = torch.device(settings.device)
        self.pipeline = pipeline.to(self.device)
        pipeline.text_encoder.requires_grad_(False).eval()
        pipeline.vae.requires_grad_(False).eval()
        self.unet = pipeline.unet.train()
        self.parameters: list[Tensor] = list(self.unet.parameters())
        self.ema = [parameter.detach().clone() for parameter in self.parameters]
        self.optimiser = _optimiser(self.parameters, settings)
        weights = channel_weights(pipeline.vae.cpu())
        pipeline.vae.to(self.device)
        self.diffusion = Diffusion(weights, object_weight=settings.object_weight, device=self.device)
        self.progress = Progress()

    def step(self, pixels: Tensor, masks: Tensor, ids: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Make one optimiser step; return each sample's loss and time step."""
        vae, encoder = self.pipeline.vae, self.pipeline.text_encoder
        timesteps = sample_timesteps(len(pixels), generator).to(self.device)
        with torch.no_grad():
            latents = vae.encode(pixels.to(self.device)).latents * vae.config.scaling_factor  # (B, C, H, W)
            tokens = encoder(ids.to(self.device)).last_hidden_state  # (B, N, D)
        noise = torch.randn(latents.shape, generator=generator).to(self.device)
        noisy, target = self.diffusion.noisy_and_target(latents, noise, timesteps)
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.device.type == "cuda"):
            prediction = self.unet(noisy, timesteps, tokens, return_dict=False)[0]
        loss, each = self.diffusion.loss(prediction.float(), target, masks.to(self.device))
        self.optimiser.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.parameters, 1.0, foreach=True)
        self.optimiser.step()
        return each, timesteps

    def set_learning_rate(self) -> None:
        """Warm up over the first steps, hold, then fall linearly to zero over the last share of the time."""
        settings, progress = self.settings, self.progress
        left = 1 - progress.seconds / (settings.minutes * 60)
        scale = min(1.0, (progress.steps + 1) / settings.warmup_steps, max(0.0, left / settings.decay_share))
        for group in self.optimiser.param_groups:
            group["lr"] = settings.learning_rate * scale

    def synchronise(self) -> None:
        """Average the parameters over all processes, and let the moving average follow them."""
        if self.ranks > 1:
            flat = torch.cat([parameter.detach().reshape(-1) for parameter in self.parameters])
            dist.all_reduce(flat)
            flat /= self.ranks
            for parameter, part in zip(self.parameters, flat.split([p.numel() for p in self.parameters]), strict=True):
                parameter.data.copy_(part.view_as(parameter))
        steps = self.progress.steps
        decay = min(self.settings.ema, (1 + steps) / (10 + steps)) ** self.settings.average_every
        torch._foreach_lerp_(self.ema, [parameter.detach() for parameter in self.parameters], 1 - decay)

    def save(self, out: Path) -> None:
        """Write the checkpoint, and the averaged weights as a pipeline folder."""
        self.folder.mkdir(parents=True, exist_ok=True)
        state = {
            "parameters": [parameter.detach() for parameter in self.parameters],
            "ema": self.ema,
            "optimiser": self.optimiser.state_dict(),
            "progress": asdict(self.progress),
        }
        draft = self.folder / "checkpoint.draft"
        torch.save(state, draft)
        os.replace(draft, self.folder / "checkpoint.pt")
        with self._averaged():
            pipeline = self.pipeline
            parts = {"autoencoder": pipeline.vae, "text_encoder": pipeline.text_encoder, "unet": self.unet}
            save_pipeline(out, tokenizer=pipeline.tokenizer, **parts)
        record = {"settings": asdict(self.settings), "progress": asdict(self.progress), "processes": self.ranks}
        (self.folder / "record.json").write_text(json.dumps(record, indent=1))

    def resume(self) -> bool:
        """Take up the last checkpoint, if there is one."""
        path = self.folder / "checkpoint.pt"
        if not path.exists():
            return False
        state = torch.load(path, map_location=self.device, weights_only=True)
        for parameter, average, saved, saved_average in zip(
            self.parameters, self.ema, state["parameters"], state["ema"], strict=True
        ):
            parameter.data.copy_(saved)
            average.copy_(saved_average)
        self.optimiser.load_state_dict(state["optimiser"])
        self.progress = Progress(**state["progress"])
        return True

    @contextlib.contextmanager
    def _averaged(self) -> Iterator[None]:
        current = [parameter.detach().clone() for parameter in self.parameters]
        for parameter, average in zip(self.parameters, self.ema, strict=True):
            parameter.data.copy_(average)
        yield
        for parameter, value in zip(self.parameters, current, strict=True):
            parameter.data.copy_(value)


def train_unet(
    pipeline: StableDiffusionPipeline, *, cache: Path, folder: Path, out: Path, settings: UnetSettings,
    rank: int = 0, ranks: int = 1,
) -> Progress:
    """Train until the time is used up, going on from the last checkpoint in `folder`."""
    trainer = UnetTrainer(pipeline, settings, folder, rank, ranks)
    if trainer.resume():
        log.info("resumed at step %d", trainer.progress.steps)
    batches = Batches(cache, pipeline, settings, rank)
    progress = trainer.progress
    generator = torch.Generator().manual_seed(settings.seed * 1_000_003 + progress.steps * 64 + rank)
    meter, saved = LossMeter(), time.monotonic()
    while progress.seconds < settings.minutes * 60:
        started = time.monotonic()
        trainer.set_learning_rate()
        for _ in range(settings.average_every):
            meter.add(*trainer.step(*batches.draw(progress, generator), generator))
            progress.steps += 1
        trainer.synchronise()
        progress.samples += settings.average_every * settings.batch * ranks
        progress.seconds = _agree(progress.seconds + time.monotonic() - started, ranks)
        if rank == 0 and meter.due():
            progress.losses.append(round(meter.report(progress), 4))
        if rank == 0 and time.monotonic() - saved > settings.checkpoint_seconds:
            trainer.save(out)
            saved = time.monotonic()
    if rank == 0:
        trainer.save(out)
    return progress


class LossMeter:
    """Averages the loss over a minute, overall and per fifth of the time range."""

    def __init__(self) -> None:
        self._since = time.monotonic()
        self._sums, self._counts = torch.zeros(5), torch.zeros(5)

    def add(self, losses: Tensor, timesteps: Tensor) -> None:
        """Count one batch: losses (B,) at time steps (B,)."""
        fifth = (timesteps // 200).cpu()
        self._sums.index_add_(0, fifth, losses.cpu())
        self._counts.index_add_(0, fifth, torch.ones(len(fifth)))

    def due(self) -> bool:
        """Say whether a minute has passed."""
        return time.monotonic() - self._since > 60

    def report(self, progress: Progress) -> float:
        """Log the averages, start anew and return the overall one."""
        mean = float(self._sums.sum() / self._counts.sum())
        fifths = [round(value, 3) for value in (self._sums / self._counts.clamp(min=1)).tolist()]
        log.info("%.0f s, %d samples, loss %.4f, by time %s", progress.seconds, progress.samples, mean, fifths)
        self.__init__()  # type: ignore[misc]
        return mean


def _agree(seconds: float, ranks: int) -> float:
    """Return rank 0's clock, so that all processes decay and stop at the same step."""
    if ranks == 1:
        return seconds
    shared = torch.tensor([seconds], dtype=torch.float64)
    dist.broadcast(shared, 0)
    return float(shared.item())


def _optimiser(parameters: list[Tensor], settings: UnetSettings) -> torch.optim.Optimizer:
    groups: list[dict[str, Any]] = [
        {"params": [p for p in parameters if p.ndim > 1], "weight_decay": settings.weight_decay},
        {"params": [p for p in parameters if p.ndim <= 1], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, settings.learning_rate, betas=(0.9, 0.99), fused=True)


def run_unet_training(init: Path, *, cache: Path, folder: Path, out: Path, settings: UnetSettings, ranks: int) -> None:
    """Train with `ranks` processes of one thread each, or in this process when there is one."""
    if ranks == 1:
        train_unet(load_pipeline(init), cache=cache, folder=folder, out=out, settings=settings)
        return
    folder.mkdir(parents=True, exist_ok=True)
    meeting = folder / f"meeting-{os.getpid()}"
    mp.start_processes(_rank_main, (init, cache, folder, out, settings, ranks, meeting), nprocs=ranks)


def _rank_main(
    rank: int, init: Path, cache: Path, folder: Path, out: Path, settings: UnetSettings, ranks: int, meeting: Path
) -> None:
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    torch.set_num_threads(1)
    torch.manual_seed(settings.seed)
    dist.init_process_group("gloo", init_method=f"file://{meeting}", rank=rank, world_size=ranks)
    pipeline = load_pipeline(init)
    train_unet(pipeline, cache=cache, folder=folder, out=out, settings=settings, rank=rank, ranks=ranks)
    dist.destroy_process_group()
