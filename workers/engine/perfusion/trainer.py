"""One concept's training: what it learns, what it draws for a step, what it makes of the network's answer.

Source: Tewel et al. 2023 (arXiv 2305.01644), section 4; recipe values in config.py.
Symbols:  o* value_outputs (O,), learned        v  embedding (D_k,) of the placeholder in each encoder, learned
          i* target_input (D,), a moving average   s  superclass_encoding (D,), fixed: locked keys are W_K s
Dimensions:  n pictures (2n with their mirror images), B batch, U templates drawn, C x H x W latents

The pass through the frozen networks is not here: trainings of the same base model share it (cohort.py). Everything
random comes from one CPU generator whose state is checkpointed, so a training that was killed and resumed ends bit for
bit where an unbroken one does (same CPU type, thread count and company).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from workers.engine.base_model import BaseModel
from workers.engine.conditioning import ConceptUse, Prompt
from workers.engine.errors import TrainingDiverged
from workers.engine.perfusion.checkpoint import Checkpoint
from workers.engine.perfusion.concept import Concept, KeyLock
from workers.engine.perfusion.config import PerfusionConfig
from workers.engine.perfusion.standing import Scores, Snapshot, Standing
from workers.engine.perfusion.tokens import TokenRow, superclass_tokens, tokenize
from workers.engine.perfusion.training_pictures import TrainingPictures
from workers.engine.settings import falling_rate

_NAME = "concept"  # the placeholder inside training prompts; never leaves this module
_LOSS_DECAY = 0.95  # of the reported loss, which jumps with the timesteps drawn


@dataclass(frozen=True)
class Draw:
    """One step's samples: noisy latents and what the network should say of them, each (B, C, H, W).

    ``which`` (B,) picks each sample's prompt among ``prompts`` (U of them); masks are (B, 1, H, W), timesteps (B,).
    """

    prompts: tuple[Prompt, ...]
    which: Tensor
    noisy: Tensor
    target: Tensor
    masks: Tensor
    timesteps: Tensor


class ConceptTrainer:
    """The state of one training."""

    def __init__(
        self,
        base: BaseModel,
        pictures: TrainingPictures,
        superclass: str,
        config: PerfusionConfig,
        *,
        seed: int,
        start: Concept | None = None,
    ) -> None:
        self.base = base
        self.pictures = pictures
        self.config = config
        self.generator = torch.Generator().manual_seed(seed)
        self.seed = seed
        self.step_count = 0
        self.loss = float("nan")  # smoothed
        self.standing: Standing | None = None  # None before the first validation
        self.concept = _to_learn(base, start or initial_concept(base, superclass, config.templates), config.key_lock)
        self._start = "superclass" if start is None else start.digest
        self._learned = _learned(self.concept)
        self._rates = dict.fromkeys(self._learned, config.value_lr)
        self._rates |= dict.fromkeys(self._rates.keys() & {"embedding", "embedding_2"}, config.embedding_lr)
        self.optimizer = torch.optim.AdamW(
            [{"params": [vector], "lr": self._rates[name]} for name, vector in self._learned.items()],
            weight_decay=0,  # decay would pull o* towards zero, not towards W_V s
        )

    def draw(self) -> Draw:
        """Draw the next step's pictures, templates, timesteps and noise."""
        batch, schedule = self.config.batch_size, self.base.denoiser.schedule
        picked = self._draw_pictures(batch)  # (B,)
        template = torch.randint(len(self.config.templates), (batch,), generator=self.generator)
        timesteps = torch.randint(schedule.timesteps, (batch,), generator=self.generator).to(self.base.device)
        noise = torch.randn((batch, *self.pictures.latents.shape[1:]), generator=self.generator).to(self.base.device)
        used, which = torch.unique(template, return_inverse=True)  # (U,), (B,)
        x0 = self.pictures.latents[picked]  # (B, C, H, W)
        return Draw(
            prompts=tuple(self._prompt(self.config.templates[int(index)]) for index in used),
            which=which.to(self.base.device),
            noisy=schedule.add_noise(x0, noise, timesteps),
            target=schedule.target(x0, noise, timesteps),
            masks=self.pictures.masks[picked],
            timesteps=timesteps,
        )

    @torch.no_grad()
    def follow(self, rows: Sequence[TokenRow], encodings: Tensor, which: Tensor) -> None:
        """Move i* towards the concept's mean encoding over the batch, each template as often as it was drawn.

        ``rows`` and ``encodings`` (U, N, D) are those of the drawn prompts.
        """
        positions = [row.at(_NAME)[0] for row in rows]
        here = encodings[torch.arange(len(positions)), positions]  # (U, D)
        self.concept.target_input.lerp_(here[which].mean(0), 1 - self.config.target_input_decay)

    def learn(self, loss: Tensor) -> None:
        """Step along the gradients that `loss` has left; raises TrainingDiverged before anything broken is taken in."""
        for rate, group in zip(self._rates.values(), self.optimizer.param_groups, strict=True):
            group["lr"] = rate * self._rate_share
        self.step_count += 1
        value = float(loss.detach())
        gradients = [vector.grad for vector in self._learned.values() if vector.grad is not None]
        if not math.isfinite(value) or not all(bool(gradient.isfinite().all()) for gradient in gradients):
            raise TrainingDiverged(f"the loss is {value} at step {self.step_count}, or its gradient is not finite")
        self.optimizer.step()
        self.optimizer.zero_grad()
        first = self.step_count == 1
        self.loss = value if first else _LOSS_DECAY * self.loss + (1 - _LOSS_DECAY) * value

    def checkpoint(self) -> Checkpoint:
        """Return everything that the next step depends on."""
        return Checkpoint(
            identity=self.identity,
            step=self.step_count,
            loss=self.loss,
            concept={name: tensor.detach() for name, tensor in self.concept.tensors().items()},
            optimizer={name: dict(self.optimizer.state[vector]) for name, vector in self._learned.items()},
            generator=self.generator.get_state(),
            standing=self.standing,
        )

    def restore(self, checkpoint: Checkpoint) -> None:
        """Go on from a checkpoint of the same training; raises CheckpointMismatch for any other."""
        checkpoint.require(self.identity)
        with torch.no_grad():
            for name, tensor in self.concept.tensors().items():
                tensor.copy_(checkpoint.concept[name])
        for name, vector in self._learned.items():
            moments = checkpoint.optimizer.get(name)  # absent before the first step
            if moments is not None:
                moved = {key: value.to(vector.device) for key, value in moments.items()}
                self.optimizer.state[vector] = moved | {"step": moments["step"]}  # AdamW counts on the CPU
        self.generator.set_state(checkpoint.generator)
        self.step_count, self.loss, self.standing = checkpoint.step, checkpoint.loss, checkpoint.standing

    @property
    def awaits_validation(self) -> bool:
        """Whether the step just done is one to validate, the last one among them, and has not been."""
        due = self.step_count % self.config.validate_every == 0 or self.step_count == self.config.steps
        return due and self.step_count > (0 if self.standing is None else self.standing.step)

    def take(self, scores: Scores) -> None:
        """Keep what a validation of the concept as it stands has shown."""
        self.standing = Standing.after(self.standing, scores, self.snapshot())

    def snapshot(self) -> Snapshot:
        """Return a copy of the concept as it stands."""
        concept = {name: tensor.detach().clone() for name, tensor in self.concept.tensors().items()}
        return Snapshot(self.step_count, self.loss, concept)

    @property
    def _rate_share(self) -> float:
        """The share of the learning rates that the next step takes."""
        return falling_rate(self.step_count, self.config.steps, self.config.decay_share)

    @property
    def has_ended(self) -> bool:
        """Whether all steps are done, or validation has long brought nothing better."""
        plateau = self.standing is not None and self.standing.misses >= self.config.patience
        return plateau or self.step_count >= self.config.steps

    @property
    def metrics(self) -> dict[str, float]:
        """The smoothed loss, and the scores of the latest validation."""
        return {"loss": self.loss} | ({} if self.standing is None else self.standing.scores.metrics())

    @property
    def identity(self) -> str:
        """What must be equal for a checkpoint to continue this training."""
        model = f"{self.base.name} {self.base.fingerprint}"
        return (
            f"{model} {self.concept.superclass!r} {self.config.digest} {self.seed} {self.pictures.count} {self._start}"
        )

    def _prompt(self, template: str) -> Prompt:
        config = self.config
        use = ConceptUse(_NAME, self.concept, config.gate_bias, config.gate_temperature, KeyLock(config.key_lock))
        return Prompt(template.format(f"<{_NAME}>"), (use,))

    def _draw_pictures(self, batch: int) -> Tensor:
        """Return indices (B,) into pictures and, with probability 1/2 where flips are on, their mirror images."""
        picked = torch.randint(self.pictures.count, (batch,), generator=self.generator)
        mirrored = torch.rand(batch, generator=self.generator) < (0.5 if self.config.flip else 0.0)
        return picked + mirrored * self.pictures.count


def initial_concept(base: BaseModel, superclass: str, templates: Sequence[str]) -> Concept:
    """Return the concept that is its superclass: o* = W s, i* = s, v = the word's own embedding.

    s is the mean over the templates of the encoding of the superclass's last sub-token.
    """
    tokens = superclass_tokens(base.text, superclass)
    rows = [tokenize(base.text, template.format(f"<{_NAME}>"), {_NAME: tokens}, {_NAME}) for template in templates]
    with torch.no_grad():
        encodings = base.text.encode([row.ids for row in rows])  # (U, N, D)
        s = torch.stack([encodings[index, row.at(_NAME)[0]] for index, row in enumerate(rows)]).mean(0)  # (D,)
    embedding, *others = base.text.token_embeddings(tokens[-1])
    return Concept(
        value_outputs=base.projections.values @ s,  # (O,)
        target_input=s,
        embedding=embedding,
        superclass_encoding=s,
        superclass=superclass,
        embedding_2=others[0] if others else None,
    )


def _to_learn(base: BaseModel, start: Concept, key_lock: str) -> Concept:
    """Return a copy of a concept whose learned vectors take gradients; keys are o*_K = W_K s until they are learned."""
    keys = None
    if key_lock == KeyLock.TRAINED:
        locked = base.projections.keys @ start.superclass_encoding  # (O,)
        keys = (locked if start.key_outputs is None else start.key_outputs.detach().clone()).requires_grad_()
    return replace(
        start,
        value_outputs=start.value_outputs.detach().clone().requires_grad_(),
        embedding=start.embedding.detach().clone().requires_grad_(),
        target_input=start.target_input.clone(),
        key_outputs=keys,
        embedding_2=None if start.embedding_2 is None else start.embedding_2.detach().clone().requires_grad_(),
    )


def _learned(concept: Concept) -> dict[str, Tensor]:
    return {name: vector for name, vector in concept.tensors().items() if vector.requires_grad}
