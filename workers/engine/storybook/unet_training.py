"""Trains the U-Net on the rendered cache, with the text encoder and the autoencoder frozen.

On CPUs one single-threaded process per core is fastest: each steps alone, and every few steps their parameters are
averaged (local SGD), so that a core taken by another job does not stall the rest at every step. The schedule follows
the time spent, not the steps made, because only time is promised.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, cast

import torch
import torch.distributed as dist
from diffusers import StableDiffusionPipeline
from diffusers.models.attention_processor import AttnProcessor
from torch import Tensor
from torch.multiprocessing.spawn import spawn

from workers.engine.storybook.batches import Batch, Batches
from workers.engine.storybook.diffusion import Diffusion, channel_weights, sample_timesteps
from workers.engine.storybook.localisation import Localisation
from workers.engine.storybook.networks import load_pipeline, save_pipeline
from workers.engine.storybook.optimisation import UnetOptimiser

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class UnetSettings:
    """How to train; shares are of the whole time or of a batch.

    `fast` runs the U-Net compiled, in bf16 and with Muon, which pays where the processor multiplies matrices of that
    type (any recent GPU, CPUs with AMX) and slows others down.
    """

    minutes: float
    batch: int = 16
    learning_rate: float = 1e-3
    warmup_steps: int = 300
    decay_share: float = 0.5
    weight_decay: float = 0.01
    ema: float = 0.9985
    average_every: int = 8
    studio_share: float = 0.15
    studio_only_share: float = 0.0
    object_weight: float = 1.5
    localisation: float = 0.03
    caption_dropout: float = 0.10
    checkpoint_seconds: float = 240.0
    seed: int = 0
    device: str = "cpu"
    fast: bool = False


@dataclass(frozen=True)
class Folders:
    """Where the rendered shards are, where checkpoints go and where the averaged weights go as a pipeline."""

    data: Path
    work: Path
    out: Path


@dataclass
class Progress:
    """How far a run has come; saved with every checkpoint. One loss is noted per minute."""

    steps: int = 0
    samples: int = 0
    seconds: float = 0.0
    losses: list[float] = field(default_factory=list)


class UnetTrainer:
    """One process of a run: its networks, its optimiser and, on rank 0, the checkpoints."""

    def __init__(self, pipeline: StableDiffusionPipeline, settings: UnetSettings, folders: Folders, ranks: int = 1):
        self.settings, self.folders, self.ranks = settings, folders, ranks
        self.device = torch.device(settings.device)
        weights = channel_weights(pipeline.vae)
        self.pipeline = pipeline.to(self.device)
        pipeline.text_encoder.requires_grad_(False).eval()
        pipeline.vae.requires_grad_(False).eval()
        self.unet = pipeline.unet.train()
        # Torch's fused attention is several times slower than plain products for bf16 on CPUs.
        if settings.fast and settings.device == "cpu":
            self.unet.set_attn_processor(AttnProcessor())
        self.localisation = Localisation(self.unet, pipeline.tokenizer)
        self.predict = torch.compile(self.unet) if settings.fast else self.unet
        self.parameters: list[Tensor] = list(self.unet.parameters())
        self.ema = [parameter.detach().clone() for parameter in self.parameters]
        self.optimiser = UnetOptimiser(
            self.unet.named_parameters(),
            lr=settings.learning_rate,
            weight_decay=settings.weight_decay,
            muon=settings.fast,
        )
        self.diffusion = Diffusion(weights, object_weight=settings.object_weight, device=self.device)
        self.progress = Progress()

    def step(self, batch: Batch, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Make one optimiser step; return each sample's loss (B,) and time step (B,)."""
        vae, encoder = self.pipeline.vae, self.pipeline.text_encoder
        timesteps = sample_timesteps(len(batch.pixels), generator).to(self.device)
        with torch.no_grad():
            latents = vae.encode(batch.pixels.to(self.device)).latents * vae.config.scaling_factor  # (B, C, H, W)
            tokens = encoder(batch.ids.to(self.device)).last_hidden_state  # (B, N, D)
        noise = torch.randn(latents.shape, generator=generator).to(self.device)
        noisy, target = self.diffusion.noisy_and_target(latents, noise, timesteps)
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.settings.fast):
            prediction = self.predict(noisy, timesteps, tokens, return_dict=False)[0]  # (B, C, H, W)
        masks = batch.masks.to(self.device)
        loss, each = self.diffusion.loss(prediction.float(), target, masks)
        loss = loss + self.settings.localisation * self.localisation.loss(batch.ids.to(self.device), masks)
        self.optimiser.zero_grad()
        torch.autograd.backward(loss)
        torch.nn.utils.clip_grad_norm_(self.parameters, 1.0, foreach=True)
        self.optimiser.step()
        self.progress.steps += 1
        return each, timesteps

    def set_learning_rate(self) -> None:
        """Warm up over the first steps, hold, then fall linearly to zero over the last share of the time."""
        settings, progress = self.settings, self.progress
        left = 1 - progress.seconds / (settings.minutes * 60)
        scale = min(1.0, (progress.steps + 1) / settings.warmup_steps, max(0.0, left / settings.decay_share))
        self.optimiser.set_rate(settings.learning_rate * scale)

    def studio_share(self) -> float:
        """Return the share of studio pictures: all of them at first, if the settings say so."""
        spent = self.progress.seconds / (self.settings.minutes * 60)
        return 1.0 if spent < self.settings.studio_only_share else self.settings.studio_share

    def synchronise(self) -> None:
        """Average the parameters over all processes, and let the moving average follow them."""
        if self.ranks > 1:
            flat = torch.nn.utils.parameters_to_vector(self.parameters).detach()
            dist.all_reduce(flat)
            torch.nn.utils.vector_to_parameters(flat / self.ranks, self.parameters)
        steps = self.progress.steps
        decay = min(self.settings.ema, (1 + steps) / (10 + steps)) ** self.settings.average_every
        torch._foreach_lerp_(self.ema, [parameter.detach() for parameter in self.parameters], 1 - decay)

    def save(self) -> None:
        """Write the checkpoint, how it came about, and the averaged weights as a pipeline folder."""
        work = self.folders.work
        work.mkdir(parents=True, exist_ok=True)
        state = {
            "parameters": [parameter.detach() for parameter in self.parameters],
            "ema": self.ema,
            "optimiser": self.optimiser.state_dict(),
            "progress": asdict(self.progress),
        }
        torch.save(state, work / "checkpoint.draft")
        os.replace(work / "checkpoint.draft", work / "checkpoint.pt")
        record = {"settings": asdict(self.settings), "progress": asdict(self.progress), "processes": self.ranks}
        (work / "record.json").write_text(json.dumps(record, indent=1) + "\n")
        with self._averaged():
            save_pipeline(
                self.folders.out,
                autoencoder=self.pipeline.vae,
                text_encoder=self.pipeline.text_encoder,
                tokenizer=self.pipeline.tokenizer,
                unet=self.unet,
            )

    def resume(self) -> None:
        """Take up the last checkpoint, if there is one."""
        path = self.folders.work / "checkpoint.pt"
        if not path.exists():
            return
        state = torch.load(path, map_location=self.device, weights_only=True)
        _assign(self.parameters, state["parameters"])
        _assign(self.ema, state["ema"])
        self.optimiser.load_state_dict(state["optimiser"])
        self.progress = Progress(**state["progress"])
        log.info("resumed at step %d", self.progress.steps)

    @contextlib.contextmanager
    def _averaged(self) -> Iterator[None]:
        current = [parameter.detach().clone() for parameter in self.parameters]
        _assign(self.parameters, self.ema)
        yield
        _assign(self.parameters, current)


def train_unet(
    pipeline: StableDiffusionPipeline, folders: Folders, settings: UnetSettings, *, rank: int = 0, ranks: int = 1
) -> Progress:
    """Train until the time is used up, going on from the last checkpoint."""
    trainer = UnetTrainer(pipeline, settings, folders, ranks)
    trainer.resume()
    batches = Batches(folders.data, pipeline.tokenizer, size=settings.batch, caption_dropout=settings.caption_dropout)
    progress = trainer.progress
    generator = torch.Generator().manual_seed(settings.seed * 1_000_003 + progress.steps * 64 + rank)
    meter, saved = LossMeter(), time.monotonic()
    while progress.seconds < settings.minutes * 60:
        started = time.monotonic()
        trainer.set_learning_rate()
        for _ in range(settings.average_every):
            meter.add(*trainer.step(batches.draw(trainer.studio_share(), generator), generator))
        trainer.synchronise()
        progress.samples += settings.average_every * settings.batch * ranks
        progress.seconds = _agree(progress.seconds + time.monotonic() - started, ranks)
        if rank == 0 and meter.due():
            progress.losses.append(meter.report(progress))
        if rank == 0 and time.monotonic() - saved > settings.checkpoint_seconds:
            trainer.save()
            saved = time.monotonic()
    if rank == 0:
        trainer.save()
    return progress


def run_unet_training(init: Path, folders: Folders, settings: UnetSettings, *, ranks: int) -> None:
    """Train the U-Net of a pipeline folder with `ranks` processes, or in this process when there is one."""
    if ranks == 1:
        train_unet(load_pipeline(init), folders, settings)
        return
    folders.work.mkdir(parents=True, exist_ok=True)
    meeting = folders.work / f"meeting-{os.getpid()}"
    start_processes = cast(Callable[..., None], spawn)
    start_processes(_rank_main, (init, folders, settings, ranks, meeting), nprocs=ranks)
    meeting.unlink(missing_ok=True)


def _rank_main(rank: int, *arguments: Any) -> None:
    init, folders, settings, ranks, meeting = arguments
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    torch.set_num_threads(1)
    torch.manual_seed(settings.seed)
    dist.init_process_group("gloo", init_method=f"file://{meeting.absolute()}", rank=rank, world_size=ranks)
    train_unet(load_pipeline(init), folders, settings, rank=rank, ranks=ranks)
    dist.destroy_process_group()


class LossMeter:
    """Averages the loss over a minute, overall and per fifth of the time range."""

    def __init__(self) -> None:
        self._reset()

    def _reset(self) -> None:
        self._since = time.monotonic()
        self._sums, self._counts = torch.zeros(5), torch.zeros(5)

    def add(self, losses: Tensor, timesteps: Tensor) -> None:
        """Count one batch: losses (B,) at time steps (B,)."""
        fifths = (timesteps // 200).cpu()
        self._sums.index_add_(0, fifths, losses.cpu())
        self._counts.index_add_(0, fifths, torch.ones(len(fifths)))

    def due(self) -> bool:
        """Say whether a minute has passed."""
        return time.monotonic() - self._since > 60

    def report(self, progress: Progress) -> float:
        """Log the averages, start anew and return the overall one."""
        mean = round(float(self._sums.sum() / self._counts.sum()), 4)
        fifths = [round(value, 3) for value in (self._sums / self._counts.clamp(min=1)).tolist()]
        log.info("%.0f s, %d samples, loss %.4f, by time %s", progress.seconds, progress.samples, mean, fifths)
        self._reset()
        return mean


def _agree(seconds: float, ranks: int) -> float:
    """Return rank 0's clock, so that all processes decay and stop at the same step."""
    if ranks == 1:
        return seconds
    shared = torch.tensor([seconds], dtype=torch.float64)
    dist.broadcast(shared, 0)
    return float(shared.item())


def _assign(targets: list[Tensor], values: list[Tensor]) -> None:
    for target, value in zip(targets, values, strict=True):
        target.data.copy_(value)
