"""Perfusion without one of its parts, or with another reading of the paper where sources disagree."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field, replace
from typing import Final
from unittest.mock import patch

import torch
from PIL import Image
from torch import Tensor

from tests.benchmarks.perfusion.methods import FACTS, WHOLE, Settings, learn_by_perfusion
from tests.benchmarks.perfusion.personalised import Personalised
from workers.engine.base_model import BaseModel
from workers.engine.perfusion.config import PerfusionConfig
from workers.engine.perfusion.covariance import Covariance, compute_covariance, invert
from workers.engine.perfusion.tokens import TokenRow
from workers.engine.perfusion.trainer import ConceptTrainer

_RIDGE: Final = 1e-4
SAME_PROMPTS: Final = "C from the same prompts"


@contextmanager
def gradient_through_the_target() -> Iterator[None]:
    """Let the embedding's gradient run through i*, straight through: i*'s value is the running mean, as ever.

    As lucidrains/perfusion-pytorch does ("i* needs gradients"). A gradient through the running mean itself would be
    but the thousandth part by which a step moves it.
    """
    without_gradient = ConceptTrainer.follow

    def follow(self: ConceptTrainer, rows: Sequence[TokenRow], encodings: Tensor, which: Tensor) -> None:
        target = self.concept.target_input.detach_()  # off the step before
        without_gradient(self, rows, encodings, which)
        positions = [row.positions[0][1] for row in rows]  # templates name nothing but the concept
        here = encodings[torch.arange(len(positions)), positions]  # (U, D)
        mean = here[which].mean(0)  # (D,)
        target.add_(mean - mean.detach())  # nothing is added but the gradient

    with patch.object(ConceptTrainer, "follow", follow):
        yield


def in_no_metric(base: BaseModel) -> BaseModel:
    """Return the model with the identity for C: alignment is the plain dot product."""
    return replace(base, covariance=Covariance(torch.eye(base.text.width), 0, 0.0))


def in_the_metric_of_its_prompts(base: BaseModel) -> BaseModel:
    """Return the model with C measured as it was, but on its few thousand prompts, not on its 20,000 captions."""
    return replace(base, covariance=compute_covariance(base.text, base.prompts, ridge=_RIDGE))


@torch.no_grad()
def with_padding_counted(base: BaseModel) -> BaseModel:
    """Return the model with C measured on its prompts over every position, padding included."""
    second_moment, rows = torch.zeros(base.text.width, base.text.width, dtype=torch.float64), 0  # (D, D)
    for start in range(0, len(base.prompts), 256):
        ids = [base.text.row(base.text.tokens(prompt)) for prompt in base.prompts[start : start + 256]]
        encodings = base.text.encode(ids).double().flatten(0, 1)  # (B N, D)
        second_moment += encodings.T @ encodings
        rows += len(encodings)
    return replace(base, covariance=Covariance(invert(second_moment / rows, ridge=_RIDGE), rows, _RIDGE))


@dataclass(frozen=True)
class Ablation:
    """What is other than in the whole method, and which training it is to be compared with, like with like."""

    settings: Settings = field(default_factory=dict)
    model: Callable[[BaseModel], BaseModel] | None = None
    around: Callable[[], AbstractContextManager[None]] | None = None
    beside: str = WHOLE  # or the name of another ablation

    def learn(self, base: BaseModel, photos: Sequence[Image.Image], superclass: str, chosen: Settings) -> Personalised:
        """Train a concept that way, with the settings that were chosen for the whole method otherwise."""
        model = base if self.model is None else self.model(base)
        with nullcontext() if self.around is None else self.around():
            return learn_by_perfusion(model, photos, superclass, {**chosen, **self.settings})

    def changes(self, chosen: Settings) -> bool:
        """Say whether the whole method, with what was chosen for it, is anything else."""
        whole = PerfusionConfig().override(FACTS.perfusion).override(dict(chosen))
        same = all(getattr(whole, name) == value for name, value in self.settings.items())
        return not same or self.model is not None or self.around is not None


ABLATIONS: Final[dict[str, Ablation]] = {
    "without the mask": Ablation({"masked": False}),
    "training bias 0.4": Ablation({"gate_bias": 0.4}),
    "training bias 0.6": Ablation({"gate_bias": 0.6}),
    "training bias 0.75": Ablation({"gate_bias": 0.75}),
    "training bias 0.9": Ablation({"gate_bias": 0.9}),
    "gradient through i*": Ablation(around=gradient_through_the_target),
    "i* follows ten times as fast": Ablation({"target_input_decay": 0.99}),
    SAME_PROMPTS: Ablation(model=in_the_metric_of_its_prompts),
    "padding counted in C": Ablation(model=with_padding_counted, beside=SAME_PROMPTS),
    "C is the identity": Ablation(model=in_no_metric, beside=SAME_PROMPTS),
}
