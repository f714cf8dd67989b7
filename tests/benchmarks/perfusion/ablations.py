"""Perfusion without one of its parts, or with another reading of the paper where sources disagree."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field, replace
from typing import Final
from unittest.mock import patch

import torch
from PIL import Image
from torch import Tensor

from tests.benchmarks.perfusion.methods import Settings, learn_by_perfusion
from tests.benchmarks.perfusion.personalised import Personalised
from workers.engine.base_model import BaseModel
from workers.engine.perfusion.covariance import Covariance, invert
from workers.engine.perfusion.tokens import TokenRow
from workers.engine.perfusion.trainer import ConceptTrainer

_RIDGE: Final = 1e-4


@contextmanager
def gradient_through_the_target() -> Iterator[None]:
    """Let the embedding's gradient run through i*, as some of the public code does."""

    with_gradient = inspect.unwrap(ConceptTrainer.follow)  # as it is under no_grad

    def follow(self: ConceptTrainer, rows: Sequence[TokenRow], encodings: Tensor, which: Tensor) -> None:
        self.concept.target_input.detach_()
        with_gradient(self, rows, encodings, which)

    with patch.object(ConceptTrainer, "follow", follow):
        yield


def in_no_metric(base: BaseModel) -> BaseModel:
    """Return the model with the identity for C: alignment is the plain dot product."""
    return replace(base, covariance=Covariance(torch.eye(base.text.width), 0, 0.0))


def with_padding_counted(base: BaseModel) -> BaseModel:
    """Return the model with C measured over every position, padding included."""
    second_moment, rows = torch.zeros(base.text.width, base.text.width, dtype=torch.float64), 0
    with torch.no_grad():
        for start in range(0, len(base.prompts), 256):
            ids = [base.text.row(base.text.tokens(prompt)) for prompt in base.prompts[start : start + 256]]
            encodings = base.text.encode(ids).double().flatten(0, 1)  # (B N, D)
            second_moment += encodings.T @ encodings
            rows += len(encodings)
    return replace(base, covariance=Covariance(invert(second_moment / rows, ridge=_RIDGE), rows, _RIDGE))


@dataclass(frozen=True)
class Ablation:
    """What is other than in the whole method."""

    settings: Settings = field(default_factory=dict)
    model: Callable[[BaseModel], BaseModel] = lambda base: base
    around: Callable[[], AbstractContextManager[None]] = nullcontext

    def learn(self, base: BaseModel, photos: Sequence[Image.Image], superclass: str, chosen: Settings) -> Personalised:
        """Train a concept that way, with the settings that were chosen for the whole method otherwise."""
        with self.around():
            return learn_by_perfusion(self.model(base), photos, superclass, {**chosen, **self.settings})


ABLATIONS: Final[dict[str, Ablation]] = {
    "without the mask": Ablation({"masked": False}),
    "training bias 0.4": Ablation({"gate_bias": 0.4}),
    "training bias 0.6": Ablation({"gate_bias": 0.6}),
    "training bias 0.75": Ablation({"gate_bias": 0.75}),
    "training bias 0.9": Ablation({"gate_bias": 0.9}),
    "gradient through i*": Ablation(around=gradient_through_the_target),
    "i* follows ten times as fast": Ablation({"target_input_decay": 0.99}),
    "padding counted in C": Ablation(model=with_padding_counted),
    "C is the identity": Ablation(model=in_no_metric),
}
