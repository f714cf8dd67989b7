"""What cells are measured with: the models, the individuals, and the judges of what was drawn."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Final

import numpy as np
from torch import Tensor

from tests.benchmarks.perfusion.cell import Size
from tests.benchmarks.perfusion.methods import TEACHER
from tests.benchmarks.perfusion.personalised import Personalised
from tests.benchmarks.perfusion.prompts import alone, wordings
from tests.benchmarks.perfusion.store import GRADER, JUDGES, Store
from tests.benchmarks.subjects import Subject, images, subjects
from workers.engine.base_model import BaseModel
from workers.engine.metrics import ClipGrader, clip_i, clip_t, with_floor
from workers.engine.storybook.captions import with_article
from workers.engine.storybook.drawing import load_model
from workers.engine.storybook.identity import KINDS
from workers.engine.storybook.judges import AttributeJudge, IdentityJudge, Pictures

_FIRST_SEED: Final = 21_000


@dataclass(frozen=True)
class Bench:
    """Everything that cells are measured with, opened when first needed."""

    store: Store
    size: Size
    opened: dict[Path, BaseModel] = field(default_factory=dict)
    known: dict[int, list[list[Pictures]]] = field(default_factory=dict)
    rendered: dict[tuple[int, int], Tensor] = field(default_factory=dict)

    def model(self, folder: Path) -> BaseModel:
        """Open a model once."""
        if folder not in self.opened:
            self.opened[folder] = load_model(folder)
        return self.opened[folder]

    @property
    def teacher(self) -> BaseModel:
        """The base model."""
        return self.model(TEACHER)

    @cached_property
    def identity(self) -> IdentityJudge:
        """Tells individuals apart."""
        return IdentityJudge.load(JUDGES)

    @cached_property
    def attributes(self) -> AttributeJudge:
        """Reads attributes."""
        return AttributeJudge.load(JUDGES)

    @cached_property
    def grader(self) -> ClipGrader:
        """A CLIP pair that no model was trained with."""
        return ClipGrader.load(GRADER)

    @cached_property
    def individuals(self) -> list[Subject]:
        """Held-out individuals of every kind."""
        return subjects(1 + max((*self.size.tuned, *self.size.scored)), KINDS)

    def faces(self, individual: int) -> list[list[Pictures]]:
        """Render an individual and its lookalikes, once, as the judge gets to know them."""
        if individual not in self.known:
            self.known[individual] = [list(renders) for renders in self.individuals[individual].known()]
        return self.known[individual]

    def references(self, individual: int, count: int) -> Tensor:
        """Return the features (count, D) of renders of an individual that nothing was learned from, drawn once."""
        if (individual, count) not in self.rendered:
            renders = self.individuals[individual].other_renders(count)
            self.rendered[individual, count] = self.grader.image_features(images(renders))
        return self.rendered[individual, count]

    def score(self, individual: int, made: Personalised, seeds: int) -> dict[str, float]:
        """Draw every wording from as many seeds; return identity, CLIP-I, attributes and CLIP-T."""
        kind = self.individuals[individual].identity.cls
        asked = [wording for wording in wordings(kind)[:: self.size.wording_stride] for _ in range(seeds)]
        pictures = made.draw([wording.text for wording in asked], first_seed=_FIRST_SEED, steps=self.size.steps)
        features, by_itself = self.grader.image_features(images(pictures)), alone(asked)  # (P, D)
        words = self.grader.text_features([wording.text.format(with_article(kind)) for wording in asked])  # (P, D)
        picks = self.identity.pick(pictures[by_itself], self.faces(individual))
        real = self.references(individual, 2 * len(by_itself))
        said: Sequence[dict[str, str]] = self.attributes.read(pictures)
        return {
            "identity": float(np.mean(np.array(picks) == 0)),
            "CLIP-I": with_floor(clip_i, features[by_itself], real).value,
            "attributes": float(np.mean([one.share_right(read) for one, read in zip(asked, said, strict=True)])),
            "CLIP-T": clip_t(features, words),
        }
