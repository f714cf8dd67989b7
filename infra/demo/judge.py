"""Who is in the picture? An identity judge points at one of ten individuals that words cannot tell apart."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from infra.demo.story import Creature
from workers.engine.storybook.judges import IdentityJudge
from workers.engine.storybook.portrait import portraits

CANDIDATES = 10
CHANCE = 1 / CANDIDATES
_RENDERS = 8  # of each candidate, for the judge to know it by
_SEED = 70_000  # apart from the seeds of the pictures that the concept is learned from
_JUDGES = Path(__file__).parents[2] / "models" / "storybook-judges"


@dataclass(frozen=True)
class Verdict:
    """How often the judge picked the right individual."""

    right: int
    pictures: int

    @property
    def share(self) -> float:
        """Right picks among all."""
        return self.right / self.pictures


class Lineup:
    """The creature and nine lookalikes: same class, colour and pattern."""

    def __init__(self, creature: Creature, *, judges: Path = _JUDGES) -> None:
        self._judge = IdentityJudge.load(judges)
        identities = [creature.identity, *creature.lookalikes(CANDIDATES - 1)]
        self._candidates = [
            [picture.pixels for picture in portraits(identity, _RENDERS, seed=_SEED + number)]
            for number, identity in enumerate(identities)
        ]

    def judge(self, pictures: Sequence[NDArray[np.uint8]]) -> Verdict:
        """Ask for each picture (64, 64, 3) whom it shows."""
        picks = self._judge.pick(np.stack(pictures), self._candidates)
        return Verdict(right=picks.count(0), pictures=len(picks))
