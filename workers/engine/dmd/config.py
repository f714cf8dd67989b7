"""How a student is distilled: the papers' values as defaults, each with its source where it has one."""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import StrEnum
from itertools import pairwise

from workers.engine.schedule import Prediction
from workers.engine.settings import TrainingSettings, require

_TIMESTEPS = 1000  # of every base model that is served


class FakeSpace(StrEnum):
    """In which of the three a fake score's error is measured."""

    OWN = "own"  # what the network predicts
    EPSILON = "epsilon"
    V = "v_prediction"
    X0 = "sample"

    def of(self, own: Prediction) -> Prediction:
        """Return the space, for a network that predicts ``own``."""
        return own if self is FakeSpace.OWN else Prediction(self.value)


class Precision(StrEnum):
    """What the networks multiply in; weights, losses, x0 and every last layer stay in float32."""

    FLOAT32 = "float32"
    BFLOAT16 = "bfloat16"


@dataclass(frozen=True)
class DistillationConfig(TrainingSettings):
    """Training settings; DMD is arXiv 2311.18828, DMD2 is 2405.14867.

    A step is one update of the student and ``critic_ratio`` updates of the fake score. The published losses are means
    over all elements, so the published weights hold here.
    """

    steps: int = 2000
    batch_size: int = 32
    lr: float = 1e-5  # DMD, SD1.5
    critic_lr: float = 1e-5  # the same in both papers: the ratio, not the rate, keeps the fake score up to date
    critic_ratio: int = 5  # DMD2: the smallest at which the samples' mean does not swing; 10 for SD1.5, 1 in DMD
    critic_warmup: int = 0  # steps without updates of the student, while the fake score meets its samples
    warmup_share: float = 0.05  # of the steps, the first, over which learning rates rise; 500 steps in both papers
    decay_share: float = 0.0  # of the steps, the last, over which they fall to nothing
    weight_decay: float = 0.01
    clip: float = 10.0  # the most a gradient's norm may be
    guidance: float = 3.0  # of the teacher, in the pairs and in mu_real; the student needs none
    matching_guidance: float = 1.0  # share of it in mu_real, from 0, none, to 1, as in DMD: less keeps more diversity
    matching_weight: float = 1.0
    least_noise: float = 0.02  # share of the timesteps at which distributions are matched
    most_noise: float = 0.98
    regression_weight: float = 0.25  # DMD, on most data sets
    feature_weight: float = 1.0  # within regression: of the distance in the teacher's features, beside that in latents
    match_pairs: bool = False  # samples from the pairs' noise are matched as well (DMD for text-to-image)
    gan_weight: float = 0.0  # of the student's adversarial loss; 1e-3 to 5e-3 in DMD2, once the rest has converged
    gan_critic_weight: float = 1e-2
    fake_space: str = FakeSpace.OWN.value
    student_timesteps: tuple[int, ...] = (999,)  # (399,) for SDXL in one step, (999, 749, 499, 249) for four
    key_locked: bool = True  # cross-attention K and V stay the teacher's
    ema: float = 0.999  # what is kept of the average student at a step
    precision: str = Precision.FLOAT32.value
    compiled: bool = False  # costs minutes at the start and saves a third of every step after
    report_every: int = 10
    preview_every: int = 200
    checkpoint_every: int = 200

    def __post_init__(self) -> None:
        """Refuse what cannot train, with the bound in the message."""
        for name, most in (("steps", 1_000_000), ("batch_size", 4096), ("critic_ratio", 100)):
            require(1 <= getattr(self, name) <= most, f"{name} must be from 1 to {most}")
        require(0 <= self.critic_warmup < self.steps, "critic_warmup must be from 0 to below the number of steps")
        for name in ("report_every", "preview_every", "checkpoint_every"):
            require(getattr(self, name) >= 1, f"{name} must be at least 1")
        for name in ("lr", "critic_lr"):
            require(0 < getattr(self, name) <= 0.1, f"{name} must be above 0 and at most 0.1")
        for name in ("matching_weight", "regression_weight", "feature_weight", "gan_weight", "gan_critic_weight"):
            require(0 <= getattr(self, name) <= 1000, f"{name} must be from 0 to 1000")
        for name in ("weight_decay", "warmup_share", "decay_share", "matching_guidance"):
            require(0 <= getattr(self, name) <= 1, f"{name} must be from 0 to 1")
        require(0 <= self.ema < 1, "ema must be from 0 to below 1")
        require(0 < self.clip < math.inf, "clip must be above 0 and finite")
        require(0 <= self.guidance <= 50, "guidance must be from 0 to 50")
        require(0 <= self.least_noise < self.most_noise <= 1, "least_noise and most_noise must rise within 0 to 1")
        _one_of("fake_space", self.fake_space, FakeSpace)
        _one_of("precision", self.precision, Precision)
        self._check_goals()

    def _check_goals(self) -> None:
        """Refuse losses that leave the student nothing to learn from, and steps that regression cannot reach."""
        told = self.student_timesteps
        falling = all(here > there for here, there in pairwise(told))
        within = bool(told) and all(0 <= timestep < _TIMESTEPS for timestep in told)
        require(within and falling, f"student_timesteps must fall within {_TIMESTEPS - 1} to 0")
        goals = self.matching_weight + self.regression_weight + self.gan_weight
        require(goals > 0, "one of matching_weight, regression_weight and gan_weight must be above 0")
        # The pairs say where a noise ends, not where a student should stand between its steps.
        require(len(told) == 1 or self.regression_weight == 0, "regression_weight must be 0 for several steps")
        paired = self.regression_weight > 0 and self.matching_weight > 0
        require(paired or not self.match_pairs, "match_pairs needs both regression_weight and matching_weight")

    @property
    def has_critic(self) -> bool:
        """Whether anything reads the fake score; plain regression does not."""
        return self.matching_weight > 0 or self.gan_weight > 0


def _one_of(name: str, value: str, kind: type[StrEnum]) -> None:
    require(value in set(kind), f"{name} must be one of {', '.join(kind)}, not {value!r}")
