"""Perfusion training: from a few pictures to one concept.

Source: Tewel et al. 2023 (arXiv 2305.01644), section 4; recipe values in config.py.
Symbols:  o* value_outputs (O,), learned        v  embedding (D,) of the placeholder, learned
          i* target_input (D,), a moving average   s  superclass_encoding (D,), fixed: keys are locked to W_K s
Dimensions:  n pictures (2n with their mirror images), B batch, U templates, C x H x W latents

One step: encode the drawn templates with v at the placeholder; move i* (no gradient runs through it); edit the keys
and values of all layers; predict; masked loss; AdamW with a learning rate each for o* and v. The frozen networks are
only differentiated through. Everything random comes from one CPU generator whose state is checkpointed, so a training
that was killed and resumed ends bit for bit where an unbroken one does (same CPU type and thread count).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor

from workers.engine.attention import Conditioning
from workers.engine.base_model import BaseModel
from workers.engine.conditioning import ConceptUse, EncodedPrompts, Prompt
from workers.engine.errors import Interrupted, PicturesInvalid, TrainingDiverged
from workers.engine.perfusion.checkpoint import Checkpoint
from workers.engine.perfusion.concept import Concept, ConceptFile
from workers.engine.perfusion.config import PerfusionConfig
from workers.engine.perfusion.masks import attention_masks
from workers.engine.perfusion.tokens import superclass_tokens, tokenize
from workers.engine.pictures import to_pixels

MAX_PICTURES = 32
_NAME = "concept"  # the placeholder inside training prompts; never leaves this module
_LOSS_DECAY = 0.95  # of the reported loss, which jumps with the timesteps drawn


@dataclass(frozen=True)
class TrainingPictures:
    """Latents (2n, C, H, W) of the pictures followed by their mirror images, and masks (2n, 1, H, W)."""

    latents: Tensor
    masks: Tensor

    @property
    def count(self) -> int:
        """n: the number of pictures, mirror images not counted."""
        return len(self.latents) // 2


def prepare_pictures(
    base: BaseModel,
    pictures: Sequence[Image.Image],
    superclass: str,
    config: PerfusionConfig,
    *,
    seed: int,
    masks: Tensor | None = None,
) -> TrainingPictures:
    """Encode pictures and their mirror images once; ``masks`` (n, 1, H, W) replaces the model's own attention masks.

    Mirrored before encoding: latents of a mirror image are not the mirrored latents. Raises PicturesInvalid.
    """
    if not 1 <= len(pictures) <= MAX_PICTURES:
        raise PicturesInvalid(f"{len(pictures)} pictures; from 1 to {MAX_PICTURES} can be learned from")
    pixels = to_pixels(pictures, base.native_size).to(base.device)  # (n, 3, height, width)
    latents = torch.cat([base.autoencoder.encode(pixels), base.autoencoder.encode(pixels.flip(-1))])
    if masks is not None:
        if masks.shape != (len(pictures), 1, *latents.shape[2:]):
            raise PicturesInvalid(f"masks have shape {tuple(masks.shape)}; one (1, H, W) per picture is due")
        return TrainingPictures(latents, torch.cat([masks, masks.flip(-1)]).to(base.device))
    if config.masked:
        found = attention_masks(base, latents, superclass, template=config.templates[0], seed=seed)
        return TrainingPictures(latents, found)
    return TrainingPictures(latents, torch.ones_like(latents[:, :1]))


class ConceptTrainer:
    """The state of one training and its step."""

    def __init__(
        self, base: BaseModel, pictures: TrainingPictures, superclass: str, config: PerfusionConfig, *, seed: int
    ) -> None:
        self.base = base
        self.pictures = pictures
        self.config = config
        self.generator = torch.Generator().manual_seed(seed)
        self.seed = seed
        self.step_count = 0
        self.loss = float("nan")  # smoothed
        self.concept = initial_concept(base, superclass, config.templates)
        self.optimizer = torch.optim.AdamW(
            [
                {"params": [self.concept.value_outputs], "lr": config.value_lr},
                {"params": [self.concept.embedding], "lr": config.embedding_lr},
            ],
            weight_decay=0,  # decay would pull o* towards zero, not towards W_V s
        )

    def step(self) -> float:
        """Take one optimizer step and return the smoothed loss; raises TrainingDiverged."""
        batch = self.config.batch_size
        picked = self._draw_pictures(batch)  # (B,)
        template = torch.randint(len(self.config.templates), (batch,), generator=self.generator)
        timesteps = torch.randint(self.base.denoiser.schedule.timesteps, (batch,), generator=self.generator)
        noise = torch.randn((batch, *self.pictures.latents.shape[1:]), generator=self.generator)
        used, which = torch.unique(template, return_inverse=True)  # (U,), (B,)

        encoded = self.base.conditioner.encode([self._prompt(self.config.templates[int(index)]) for index in used])
        self._follow(encoded, which)
        conditioning = self.base.conditioner.project(encoded).select(which.to(self.base.device))
        loss = self._loss(picked, timesteps.to(self.base.device), noise.to(self.base.device), conditioning)
        self.optimizer.zero_grad()
        torch.autograd.backward(loss)
        self.optimizer.step()
        return self._advance(float(loss.detach()))

    def checkpoint(self) -> Checkpoint:
        """Return everything that the next step depends on."""
        return Checkpoint(
            identity=self.identity,
            step=self.step_count,
            loss=self.loss,
            concept={name: tensor.detach() for name, tensor in self.concept.tensors().items()},
            optimizer={name: dict(self.optimizer.state[parameter]) for name, parameter in self._learned()},
            generator=self.generator.get_state(),
        )

    def restore(self, checkpoint: Checkpoint) -> None:
        """Go on from a checkpoint of the same training; raises CheckpointMismatch for any other."""
        checkpoint.require(self.identity)
        with torch.no_grad():
            for name, tensor in self.concept.tensors().items():
                tensor.copy_(checkpoint.concept[name])
        for name, parameter in self._learned():
            moments = checkpoint.optimizer.get(name)  # absent before the first step
            if moments is not None:
                moved = {key: value.to(parameter.device) for key, value in moments.items()}
                self.optimizer.state[parameter] = moved | {"step": moments["step"]}  # AdamW counts on the CPU
        self.generator.set_state(checkpoint.generator)
        self.step_count, self.loss = checkpoint.step, checkpoint.loss

    @property
    def identity(self) -> str:
        """What must be equal for a checkpoint to continue this training."""
        model = f"{self.base.name} {self.base.fingerprint}"
        return f"{model} {self.concept.superclass!r} {self.config.digest} {self.seed} {self.pictures.count}"

    def _learned(self) -> list[tuple[str, Tensor]]:
        return [("value_outputs", self.concept.value_outputs), ("embedding", self.concept.embedding)]

    def _prompt(self, template: str) -> Prompt:
        use = ConceptUse(
            _NAME, self.concept, gate_bias=self.config.gate_bias, gate_temperature=self.config.gate_temperature
        )
        return Prompt(template.format(f"<{_NAME}>"), (use,))

    def _draw_pictures(self, batch: int) -> Tensor:
        """Return indices (B,) into pictures and, with probability 1/2 where flips are on, their mirror images."""
        picked = torch.randint(self.pictures.count, (batch,), generator=self.generator)
        mirrored = torch.rand(batch, generator=self.generator) < (0.5 if self.config.flip else 0.0)
        return picked + mirrored * self.pictures.count

    @torch.no_grad()
    def _follow(self, encoded: EncodedPrompts, which: Tensor) -> None:
        """Move i* towards the concept's mean encoding over the batch, each template as often as it was drawn."""
        positions = [row.at(_NAME)[0] for row in encoded.rows]
        here = encoded.value_encodings[torch.arange(len(positions)), positions]  # (U, D)
        mean = here[which.to(here.device)].mean(0)  # (D,)
        self.concept.target_input.lerp_(mean, 1 - self.config.target_input_decay)

    def _loss(self, picked: Tensor, timesteps: Tensor, noise: Tensor, conditioning: Conditioning) -> Tensor:
        schedule, x0 = self.base.denoiser.schedule, self.pictures.latents[picked]  # (B, C, H, W)
        output = self.base.denoiser.output(schedule.add_noise(x0, noise, timesteps), timesteps, conditioning)
        return masked_squared_error(output, schedule.target(x0, noise, timesteps), self.pictures.masks[picked])

    def _advance(self, loss: float) -> float:
        self.step_count += 1
        if not math.isfinite(loss):
            raise TrainingDiverged(f"the loss is {loss} at step {self.step_count}")
        first = self.step_count == 1
        self.loss = loss if first else _LOSS_DECAY * self.loss + (1 - _LOSS_DECAY) * loss
        return self.loss


def masked_squared_error(output: Tensor, target: Tensor, mask: Tensor) -> Tensor:
    """Return the error of (B, C, H, W) weighted by the mask (B, 1, H, W), summing to the mean over pictures.

    Each picture is normalised by its own mask, so that a small thing counts as much as a large one.
    """
    error = (output - target).square().mean(1, keepdim=True)  # (B, 1, H, W)
    return ((error * mask).sum((1, 2, 3)) / mask.sum((1, 2, 3))).mean()


def initial_concept(base: BaseModel, superclass: str, templates: Sequence[str]) -> Concept:
    """Return the concept that is its superclass: o* = W_V s, i* = s, v = the word's own embedding.

    s is the mean over the templates of the encoding of the superclass's last sub-token.
    """
    tokens = superclass_tokens(base.text, superclass)
    rows = [tokenize(base.text, template.format(f"<{_NAME}>"), {_NAME: tokens}, {_NAME}) for template in templates]
    with torch.no_grad():
        encodings = base.text.encode([row.ids for row in rows])  # (U, N, D)
        s = torch.stack([encodings[index, row.at(_NAME)[0]] for index, row in enumerate(rows)]).mean(0)  # (D,)
        value_outputs = base.projections.values @ s  # (O,)
    return Concept(
        value_outputs=value_outputs.requires_grad_(),
        target_input=s.clone(),
        embedding=base.text.token_embedding(tokens[-1]).requires_grad_(),
        superclass_encoding=s,
        superclass=superclass,
    )


def train_concept(
    base: BaseModel,
    pictures: Sequence[Image.Image],
    superclass: str,
    config: PerfusionConfig,
    *,
    seed: int,
    checkpoints: Path,
    masks: Tensor | None = None,
    resume_from: Path | None = None,
    on_progress: Callable[[int, int, float], None],
    on_checkpoint: Callable[[int, Path], None],
    should_stop: Callable[[], bool],
) -> ConceptFile:
    """Learn ``superclass``'s particular member from pictures.

    ``on_progress`` gets step, steps and smoothed loss after every step; ``on_checkpoint`` gets step and file every
    ``config.checkpoint_every`` steps, in the folder ``checkpoints``. When ``should_stop`` says so between two steps,
    a checkpoint is written and Interrupted raised with it. Raises TrainingDiverged, PicturesInvalid,
    SuperclassInvalid, CovarianceMissing and, for a wrong ``resume_from``, CheckpointMismatch.
    """
    covariance = base.covariance_sha256
    prepared = prepare_pictures(base, pictures, superclass, config, seed=seed, masks=masks)
    trainer = ConceptTrainer(base, prepared, superclass, config, seed=seed)
    if resume_from is not None:
        trainer.restore(Checkpoint.load(resume_from))

    def write_checkpoint() -> Path:
        path = checkpoints / f"checkpoint-{trainer.step_count:06d}.safetensors"
        trainer.checkpoint().save(path)
        return path

    while trainer.step_count < config.steps:
        if should_stop():
            raise Interrupted(trainer.step_count, write_checkpoint())
        loss = trainer.step()
        on_progress(trainer.step_count, config.steps, loss)
        if trainer.step_count % config.checkpoint_every == 0 and trainer.step_count < config.steps:
            on_checkpoint(trainer.step_count, write_checkpoint())

    return ConceptFile(
        concept=trainer.concept,
        base_model=base.name,
        encoder_fingerprint=base.fingerprint,
        covariance_sha256=covariance,
        layer_widths=base.projections.widths,
        steps=config.steps,
        settings=asdict(config),
        scores={"loss": round(trainer.loss, 6)},
    )
