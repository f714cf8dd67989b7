"""Distillation of a base model: from prompts and its own pairs to a student.

The trainer knows networks and tensors; here is what makes it a piece of work: a model's U-Net three times over,
prompts, pairs and real pictures as material, checkpoints, previews, and leave to stop between two steps.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
from diffusers import UNet2DConditionModel
from safetensors import SafetensorError
from torch import Tensor

from workers.engine.base_model import BaseModel
from workers.engine.dmd.config import DistillationConfig, Precision
from workers.engine.dmd.material import Material, Paired, PromptContexts
from workers.engine.dmd.networks import UNetScore, weights_digest
from workers.engine.dmd.processes import ALONE, Processes, anyone
from workers.engine.dmd.student import draw, seeded_noises
from workers.engine.dmd.student_model import StudentFacts
from workers.engine.dmd.teacher_pairs import TeacherPairs
from workers.engine.dmd.trainer import DistillationTrainer
from workers.engine.errors import CheckpointMismatch, Interrupted, SettingsInvalid
from workers.engine.pictures import save_sheet, to_pictures
from workers.engine.tensor_file import read_tensors, write_tensors

_PREVIEWS = 16  # pictures on a preview


@dataclass(frozen=True)
class RealPictures:
    """Latents (R, C, H, W) of real pictures with their prompts, for the discriminator."""

    latents: Tensor
    prompts: tuple[str, ...]

    @property
    def digest(self) -> str:
        """A short hash of both."""
        digest = hashlib.sha256(json.dumps(self.prompts).encode())
        digest.update(self.latents.float().cpu().contiguous().numpy().tobytes())
        return digest.hexdigest()[:16]


@dataclass(frozen=True)
class Student:
    """The average student's U-Net, its facts, and the last signals."""

    unet: UNet2DConditionModel
    facts: StudentFacts
    signals: Mapping[str, float]


class Distillation:
    """A trainer over one base model's U-Net, with its previews and checkpoints."""

    def __init__(
        self,
        base: BaseModel,
        prompts: Sequence[str],
        config: DistillationConfig,
        *,
        seed: int,
        pairs: TeacherPairs | None = None,
        real: RealPictures | None = None,
        processes: Processes = ALONE,
    ) -> None:
        """Raises SettingsInvalid, PromptTooLong or PlaceholderUnknown for what cannot be learned from."""
        if not prompts:
            raise SettingsInvalid("a distillation needs at least one prompt")
        self.base, self.config = base, config
        autocast = config.precision == Precision.BFLOAT16
        unet, schedule = base.denoiser.unet, base.denoiser.schedule
        teacher = UNetScore.view_of(unet, schedule, autocast=autocast)
        student = UNetScore.copy_of(unet, schedule, autocast=autocast)
        if config.key_locked:
            student.lock_keys()
        material = _material(base, prompts, pairs, real)
        self.trainer = DistillationTrainer(teacher, student, material, config, seed=seed, processes=processes)
        if config.compiled:
            for network in (teacher, student, self.trainer.fake):
                network.compile(dynamic=False)
        self._identity = _identity(base, prompts, config, seed=seed, pairs=pairs, real=real)

    def save_preview(self, path: Path) -> None:
        """Draw the first prompts with the average student, always from the same noise, onto one sheet."""
        contexts, told = self.trainer.material.contexts, self.config.student_timesteps
        noises = seeded_noises(range(_PREVIEWS), self.trainer.material.shape, len(told)).to(self.base.device)
        context = contexts.take(torch.arange(_PREVIEWS) % len(contexts))
        with torch.no_grad():
            latents = draw(self.trainer.averaged, noises, told, context)
        save_sheet(to_pictures(self.base.autoencoder.decode(latents)), path)

    def save_checkpoint(self, folder: Path) -> Path:
        """Write a checkpoint, whole or not at all."""
        path = folder / f"checkpoint-{self.trainer.step_count:06d}.safetensors"
        facts = {"identity": self._identity, "step": str(self.trainer.step_count)}
        write_tensors(path, self.trainer.state(), facts)
        return path

    def restore_checkpoint(self, path: Path) -> None:
        """Go on from a checkpoint of the same distillation; raises CheckpointMismatch for anything else."""
        try:
            tensors, facts = read_tensors(path)
            if facts["identity"] != self._identity:
                raise CheckpointMismatch("the checkpoint belongs to a distillation with other inputs or settings")
            self.trainer.restore(tensors, int(facts["step"]))
        except torch.OutOfMemoryError:  # a RuntimeError, and not the checkpoint's fault
            raise
        except (OSError, SafetensorError, KeyError, ValueError, RuntimeError) as error:
            raise CheckpointMismatch(f"{path.name} is not a checkpoint of a distillation: {error}") from error

    def student(self, signals: Mapping[str, float]) -> Student:
        """Return the average student as it stands."""
        facts = StudentFacts(
            teacher=self.base.name,
            timesteps=self.config.student_timesteps,
            guidance=self.config.guidance,
            key_locked=self.config.key_locked,
            steps=self.trainer.step_count,
        )
        return Student(self.trainer.averaged.unet, facts, signals)


def distill(
    work: Distillation,
    folder: Path,
    *,
    resume_from: Path | None = None,
    on_progress: Callable[[int, int, Mapping[str, float]], None],
    on_preview: Callable[[int, Path], None],
    on_checkpoint: Callable[[int, Path], None],
    should_stop: Callable[[], bool],
) -> Student:
    """Run a distillation to its end, in step with its other processes where there are any.

    ``on_progress`` gets step, steps and, every ``report_every`` steps, the signals (signals.py) since it last got any;
    ``on_preview`` a sheet of pictures and ``on_checkpoint`` a checkpoint in ``folder``, each every so many steps. When
    ``should_stop`` says so between two steps, a checkpoint is written and Interrupted raised with it. Raises
    TrainingDiverged and, for a wrong ``resume_from``, CheckpointMismatch.

    Only the first process writes files. A stop is everyone's, at the same step, whoever asks for it.
    """
    trainer, config = work.trainer, work.config
    signals: Mapping[str, float] = {}
    writes = trainer.processes.rank == 0
    if resume_from is not None:
        work.restore_checkpoint(resume_from)
    while trainer.step_count < config.steps:
        if anyone(trainer.processes, says_so=should_stop()):
            raise Interrupted(trainer.step_count, work.save_checkpoint(folder) if writes else None)
        trainer.step()
        step, last = trainer.step_count, trainer.step_count == config.steps
        is_due = step % config.report_every == 0 or last
        if is_due:
            signals = trainer.signals.report()
        on_progress(step, config.steps, signals if is_due else {})
        if writes and (step % config.preview_every == 0 or last):
            path = folder / f"preview-{step:06d}.webp"
            work.save_preview(path)
            on_preview(step, path)
        if writes and step % config.checkpoint_every == 0 and not last:
            on_checkpoint(step, work.save_checkpoint(folder))
    return work.student(signals)


def _material(
    base: BaseModel, prompts: Sequence[str], pairs: TeacherPairs | None, real: RealPictures | None
) -> Material:
    size = base.native_size
    contexts = partial(PromptContexts, base.text, size=size)
    return Material(
        shape=base.latent_shape(size, size),
        contexts=contexts(prompts),
        blank=contexts([""]).take(torch.zeros(1, dtype=torch.long)),
        pairs=None if pairs is None else Paired(pairs.latents, contexts(pairs.prompts), noise=pairs.noise),
        real=None if real is None else Paired(real.latents, contexts(real.prompts)),
    )


def _identity(
    base: BaseModel,
    prompts: Sequence[str],
    config: DistillationConfig,
    *,
    seed: int,
    pairs: TeacherPairs | None,
    real: RealPictures | None,
) -> str:
    """What must be equal for a checkpoint to continue this distillation."""
    told = hashlib.sha256(json.dumps(list(prompts)).encode()).hexdigest()[:16]
    inputs = [told, "-" if pairs is None else pairs.digest, "-" if real is None else real.digest]
    return " ".join([weights_digest(base.denoiser.unet), base.fingerprint, config.digest, *inputs, str(seed)])
