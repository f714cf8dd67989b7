"""One distillation: a student, its frozen guided teacher, and a fake score that keeps up with the student.

Sources: arXiv 2311.18828 (DMD: distribution matching, regression on the teacher's pairs) and 2405.14867 (DMD2: several
updates of the fake score for each of the student, the discriminator, a few steps by backward simulation).
Dimensions:  B samples, C x H x W latents
Symbols:     objective.py's

A step: the student draws x; its loss is matching + regression + fooling, each as far as it has a weight; then the fake
score learns to denoise x, and again for fresh samples of the student as it now stands. Everything random comes from one
CPU generator whose state is checkpointed, so that a run that was killed and resumed ends bit for bit where an unbroken
one does (same CPU type, thread count and number of processes). What is drawn is drawn for the whole batch; of that, a
process keeps its share (processes.py), and B is from there on the share's size.

Nothing here knows a U-Net: the same code distils a two-dimensional mixture, where every score is known.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Generic, TypeVar, cast

import torch
from torch import Tensor, nn

from workers.engine.dmd import objective
from workers.engine.dmd.config import DistillationConfig, FakeSpace
from workers.engine.dmd.context import Context
from workers.engine.dmd.discriminator import Discriminator
from workers.engine.dmd.learner import Learner
from workers.engine.dmd.material import Material, Paired
from workers.engine.dmd.networks import ScoreNetwork
from workers.engine.dmd.objective import Predictor, TimestepRange
from workers.engine.dmd.processes import ALONE, Processes, Share
from workers.engine.dmd.signals import SignalWindow
from workers.engine.dmd.student import draw
from workers.engine.errors import SettingsInvalid
from workers.engine.settings import falling_rate

Network = TypeVar("Network", bound=ScoreNetwork)

_FEATURES_UP_TO = 0.2  # share of the noise levels at which features are compared: those that see fine detail


@dataclass(frozen=True)
class Samples:
    """Samples of the student (B, C, H, W) and what it was told."""

    x: Tensor
    context: Context


class DistillationTrainer(Generic[Network]):
    """The state of one distillation and its step.

    ``student`` starts as the teacher, and with it the fake score and the average; of its parameters, those that take
    gradients are learned, and the others stand outside optimiser and average.
    """

    def __init__(
        self,
        teacher: Predictor[Context],
        student: Network,
        material: Material,
        config: DistillationConfig,
        *,
        seed: int,
        processes: Processes = ALONE,
    ) -> None:
        _require_material(material, config)
        if config.regression_weight > 0 and config.feature_weight > 0 and not isinstance(teacher, ScoreNetwork):
            raise SettingsInvalid("feature_weight is above 0, but the teacher has no features")
        self.teacher, self.student, self.material, self.config = teacher, student, material, config
        self.processes = processes
        self.averaged = student.average()
        self.fake = copy.deepcopy(student).requires_grad_(True)
        self.head: Discriminator | None = None
        self.generator = torch.Generator().manual_seed(seed)
        self.step_count = 0
        self.signals = SignalWindow(processes)
        self._share = Share(config.batch_size, processes)
        self._schedule = student.schedule
        self._device = next(student.parameters()).device
        self._every = TimestepRange(0, self._schedule.timesteps - 1)
        self._nearly_clean = TimestepRange.share(self._schedule.timesteps, 0, _FEATURES_UP_TO)
        self._matched = TimestepRange.share(self._schedule.timesteps, config.least_noise, config.most_noise)
        critic: dict[str, nn.Parameter] = dict(self.fake.named_parameters())
        if config.gan_weight > 0:
            self.head = self._make_head(seed)
            critic |= {f"head.{name}": parameter for name, parameter in self.head.named_parameters()}
        learned = student.trained()
        self._averages = {name: tensor for name, tensor in self.averaged.named_parameters() if name in learned}
        rates = {"weight_decay": config.weight_decay, "clip": config.clip}
        self._own = Learner(learned, processes, lr=config.lr, **rates)
        self._critic = Learner(critic, processes, lr=config.critic_lr, **rates)

    def step(self) -> None:
        """Update the student once (but for the fake score's warm-up) and the fake score; raises TrainingDiverged."""
        share = learning_rate_share(self.step_count, self.config)
        self._own.set_rate(share)
        self._critic.set_rate(share)
        samples: Samples | None = None
        if self.step_count >= self.config.critic_warmup:
            samples = self._update_student()
        if self.config.has_critic:
            for _ in range(self.config.critic_ratio):
                # The first update takes the samples that the student has just learned from, as both papers do.
                self._update_critic(samples or self._draw_detached())
                samples = None
        self.step_count += 1

    def state(self) -> dict[str, Tensor]:
        """Return everything that the next step depends on."""
        parts: dict[str, Mapping[str, Tensor]] = {
            "student": self._own.state(),
            "average": self._averages,
            "critic": self._critic.state(),
            "signals": self.signals.state(),
        }
        tensors = {f"{part}/{name}": tensor for part, named in parts.items() for name, tensor in named.items()}
        return tensors | {"generator": self.generator.get_state()}

    def restore(self, tensors: Mapping[str, Tensor], step: int) -> None:
        """Go on from another trainer's `state` after ``step`` steps; raises KeyError where a tensor is missing."""
        self._own.restore(_part(tensors, "student"))
        self._critic.restore(_part(tensors, "critic"))
        self.signals.restore(_part(tensors, "signals"))
        for name, average in self._averages.items():
            average.data.copy_(tensors[f"average/{name}"])
        self.generator.set_state(tensors["generator"].to(torch.uint8))
        self.step_count = step

    def _update_student(self) -> Samples:
        config, parts = self.config, []
        again: Samples | None = None
        if config.regression_weight > 0 and self.material.pairs is not None:
            again, latents = self._draw_again(self.material.pairs)
            parts.append(config.regression_weight * self._regression_loss(again, latents))
        # Regression by itself looks at no samples but those from its pairs.
        samples = again if again is not None and not config.has_critic else self._draw()
        matched = samples
        if again is not None and config.match_pairs:
            both = Context.concatenate([samples.context, again.context])
            matched = Samples(torch.cat([samples.x, again.x]), both)
        if config.matching_weight > 0:
            parts.append(config.matching_weight * self._matching_loss(matched))
        if self.head is not None:
            fooled = objective.fool_loss(self._logits(self.head, samples))
            parts.append(config.gan_weight * fooled)
            self.signals.add_mean("fool_loss", fooled)
        self.signals.add("student_gradient", self._own.descend(torch.stack(parts).sum()))
        self.signals.add_samples(samples.x)
        self._follow()
        return Samples(samples.x.detach(), samples.context)

    def _regression_loss(self, again: Samples, latents: Tensor) -> Tensor:
        """Return how far samples are from what the teacher drew (B, C, H, W): in latents, and in its features."""
        distance = objective.regression_loss(again.x, latents)
        self.signals.add_mean("regression_loss", distance)
        if self.config.feature_weight == 0:
            return distance
        timesteps, noise = self._draw_timesteps(self._nearly_clean, len(latents)), self._draw_noise(len(latents))
        teacher = cast(ScoreNetwork, self.teacher)  # checked at the start

        def seen(x: Tensor) -> list[Tensor]:
            return teacher.features(self._schedule.add_noise(x, noise, timesteps), timesteps, again.context)

        with torch.no_grad():
            theirs = seen(latents)
        apart = objective.feature_loss(seen(again.x), theirs)
        self.signals.add_mean("feature_loss", apart)
        return distance + self.config.feature_weight * apart

    def _matching_loss(self, samples: Samples) -> Tensor:
        """Return the loss whose gradient is the difference of the two scores at one noising of the samples."""
        x = samples.x.detach()
        timesteps = self._draw_timesteps(self._matched, len(x))
        with torch.no_grad():
            x_t = self._schedule.add_noise(x, self._draw_noise(len(x)), timesteps)  # (B, C, H, W)
            real = objective.guided_x0(
                self.teacher,
                x_t,
                timesteps,
                samples.context,
                blank=self.material.blank,
                guidance=1 + self.config.matching_guidance * (self.config.guidance - 1),
            )
            fake = self.fake.predict_x0(x_t, timesteps, samples.context)
        gradient = objective.distribution_matching_gradient(x, real, fake)
        self.signals.add_mean("matching_gradient", gradient.square().mean(), root=True)
        return objective.distribution_matching_loss(samples.x, gradient)

    def _update_critic(self, samples: Samples) -> None:
        x, own = samples.x, self._schedule.prediction
        timesteps, noise = self._draw_timesteps(self._every, len(x)), self._draw_noise(len(x))
        output = self.fake(self._schedule.add_noise(x, noise, timesteps), timesteps, samples.context)
        space = FakeSpace(self.config.fake_space).of(own)
        loss = objective.denoising_loss(self._schedule, output, x, noise, timesteps, space=space)
        self.signals.add_mean("fake_score_loss", loss)
        if self.head is not None and self.material.real is not None:
            real = self._draw_paired(self.material.real)
            told_apart = objective.tell_apart_loss(self._logits(self.head, samples), self._logits(self.head, real))
            loss = loss + self.config.gan_critic_weight * told_apart
            self.signals.add_mean("tell_apart_loss", told_apart)
        self.signals.add("critic_gradient", self._critic.descend(loss))

    def _logits(self, head: Discriminator, samples: Samples) -> Tensor:
        """Return what the head makes of one noising of the samples (B,); gradients run into ``samples.x``."""
        count = len(samples.x)
        timesteps = self._draw_timesteps(self._every, count)
        x_t = self._schedule.add_noise(samples.x, self._draw_noise(count), timesteps)
        logits: Tensor = head(self.fake.features(x_t, timesteps, samples.context)[-1])
        return logits

    def _draw(self) -> Samples:
        """Let the student draw a batch; in several steps, all samples end at the same one, drawn at random."""
        config = self.config
        context = self.material.contexts.take(self._draw_indices(len(self.material.contexts)))
        last = int(torch.randint(len(config.student_timesteps), (), generator=self.generator))
        noises = torch.stack([self._draw_noise(self._share.size) for _ in range(last + 1)])
        return Samples(draw(self.student, noises, config.student_timesteps[: last + 1], context), context)

    @torch.no_grad()
    def _draw_detached(self) -> Samples:
        return self._draw()

    def _draw_again(self, pairs: Paired) -> tuple[Samples, Tensor]:
        """Let the student draw from the noise of some pairs; return that and what the teacher drew (B, C, H, W)."""
        assert pairs.noise is not None  # checked at the start
        indices = self._draw_indices(len(pairs.contexts))
        noise, context = pairs.noise[indices].to(self._device), pairs.contexts.take(indices)
        x = draw(self.student, noise[None], self.config.student_timesteps, context)
        return Samples(x, context), pairs.latents[indices].to(self._device)

    def _draw_paired(self, paired: Paired) -> Samples:
        indices = self._draw_indices(len(paired.contexts))
        return Samples(paired.latents[indices].to(self._device), paired.contexts.take(indices))

    def _draw_indices(self, count: int) -> Tensor:
        return self._share.of(torch.randint(count, (self.config.batch_size,), generator=self.generator))

    def _draw_noise(self, count: int) -> Tensor:
        noise = torch.randn((self._share.whole(count), *self.material.shape), generator=self.generator)
        return self._share.of(noise).to(self._device)

    def _draw_timesteps(self, span: TimestepRange, count: int) -> Tensor:
        return self._share.of(span.draw(self._share.whole(count), self.generator)).to(self._device)

    @torch.no_grad()
    def _make_head(self, seed: int) -> Discriminator:
        blank = self.material.blank
        x = torch.zeros((1, *self.material.shape), device=self._device)
        features = self.fake.features(x, torch.zeros(1, dtype=torch.long, device=self._device), blank)[-1]
        return Discriminator.reading(features, seed=seed)

    @torch.no_grad()
    def _follow(self) -> None:
        """Move the average; at first faster than the setting says, so that it does not remember the start."""
        updates = self.step_count - self.config.critic_warmup
        decay = min(self.config.ema, (1 + updates) / (10 + updates))
        for name, average in self._averages.items():
            average.lerp_(self._own.parameters[name], 1 - decay)


def learning_rate_share(step: int, config: DistillationConfig) -> float:
    """Return the share of the learning rates at a step: rising from nothing, level, falling to nothing at the end."""
    rising = (step + 1) / max(1.0, config.warmup_share * config.steps)
    return min(rising, falling_rate(step, config.steps, config.decay_share))


def _require_material(material: Material, config: DistillationConfig) -> None:
    """Raise SettingsInvalid where a loss has a weight but nothing to learn from."""
    if config.regression_weight > 0 and (material.pairs is None or material.pairs.noise is None):
        raise SettingsInvalid("regression_weight is above 0, but there are no pairs of the teacher")
    if config.gan_weight > 0 and material.real is None:
        raise SettingsInvalid("gan_weight is above 0, but there are no real pictures")


def _part(tensors: Mapping[str, Tensor], part: str) -> dict[str, Tensor]:
    prefix = f"{part}/"
    return {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}
