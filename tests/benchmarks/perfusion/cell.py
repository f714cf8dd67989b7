"""What one measurement is of: an individual learned by one method with one setting, and what is drawn of it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Final

from tests.benchmarks.perfusion.ablations import ABLATIONS
from tests.benchmarks.perfusion.methods import CAPTION, FACTS, METHODS, WHOLE, Settings
from workers.engine.perfusion.concept import KeyLock

SEARCH, SCORE, ABLATION, FEW = "search", "score", "ablation", "few"
DEFAULT: Final = "default"
"""The arm that is drawn at the model's own dial."""

_TUNED: Final = (0, 4, 8, 12)  # a scarf, a bird, a chair, a dog
_SCORED: Final = (1, 2, 3, 5, 6, 7, 9, 10, 11, 13, 14, 15)
_SOME: Final = (2, 3, 5, 10, 11, 14)  # a house, a hat, a cat, a fish, a rabbit, a teapot


@dataclass(frozen=True)
class Size:
    """How much is measured; individuals go by their place among the held-out ones (`subjects`).

    ``steps`` are those of a picture, ``concept_steps`` those of a training if not its own. Without individuals to tune
    on, methods take their settled settings.
    """

    tuned: tuple[int, ...] = _TUNED
    scored: tuple[int, ...] = _SCORED
    ablated: tuple[int, ...] = _SOME
    few: tuple[int, ...] = _SOME
    ablations: tuple[str, ...] = tuple(ABLATIONS)
    photos: int = 5
    few_photos: int = 1
    wording_stride: int = 1
    seeds: int = 4
    fewer_seeds: int = 2  # for what is only chosen by, or compared with itself, and along the dial
    steps: int = 25
    concept_steps: int | None = None
    biases: tuple[float, ...] = (0.4, 0.5, 0.6, 0.7, 0.85, 1.0)  # a lower one paints all of a picture (dial.md)
    ablated_biases: tuple[float, ...] = (0.7, 0.85)  # of these; beside the model's own
    temperatures: tuple[float, ...] = (0.05, 0.1, 0.15, 0.25)

    @property
    def of_a_cell(self) -> Mapping[str, object]:
        """Return what a cell's result depends on; the rest only says which cells there are."""
        drawn = ("wording_stride", "seeds", "fewer_seeds", "steps", "concept_steps")
        names = (*drawn, "biases", "ablated_biases", "temperatures")
        return {name: getattr(self, name) for name in names}


@dataclass(frozen=True)
class Cell:
    """What is learned and how: ``settings`` override the method's own. An ablation goes by its name as a method."""

    stage: str
    method: str
    settings: Settings
    individual: int
    photos: int

    @property
    def key(self) -> str:
        """A name of its own."""
        told = json.dumps(asdict(self), sort_keys=True)
        return f"{self.stage}-{self.individual:02d}-{hashlib.sha256(told.encode()).hexdigest()[:16]}"

    def seeds(self, size: Size, arm: str = DEFAULT) -> int:
        """Return from how many seeds each wording is drawn."""
        return size.seeds if self.stage in {SCORE, FEW} and arm == DEFAULT else size.fewer_seeds

    @property
    def key_lock(self) -> KeyLock | None:
        """The key lock of a Perfusion, None of all else."""
        if self.method == CAPTION:
            return None
        return METHODS[WHOLE if self.method in ABLATIONS else self.method].key_lock

    @property
    def is_for_students(self) -> bool:
        """Whether students draw it too: what the teacher drew in full of a concept or a caption."""
        return self.stage == SCORE and (self.key_lock is not None or self.method == CAPTION)

    @property
    def keeps_concept(self) -> bool:
        """Whether students draw it from a concept file."""
        return self.is_for_students and self.method != CAPTION


def arms(size: Size, cell: Cell) -> dict[str, dict[str, Any]]:
    """Return what the teacher draws of one training, each with its dial: as it is, and over the dial."""
    drawn: dict[str, dict[str, Any]] = {DEFAULT: {}}
    if cell.key_lock is None or cell.stage not in {SCORE, ABLATION}:
        return drawn
    dialled = bias_arms(size.biases if cell.stage == SCORE else size.ablated_biases, cell.key_lock).items()
    drawn |= {arm: {"gate_bias": bias} for bias, arm in dialled if arm != DEFAULT}
    if cell.stage == SCORE and cell.method == WHOLE:
        warmth = temperature_arms(size).items()
        drawn |= {arm: {"gate_temperature": temperature} for temperature, arm in warmth if arm != DEFAULT}
    return drawn


def bias_arms(biases: Sequence[float], lock: KeyLock) -> dict[float, str]:
    """Return the arm that is drawn at each bias, rising; the model's own is the default."""
    own = FACTS.gate_bias[lock.value]
    return {bias: DEFAULT if bias == own else f"bias {bias:g}" for bias in sorted({*biases, own})}


def temperature_arms(size: Size) -> dict[float, str]:
    """Return the arm that is drawn at each temperature, rising; the model's own is the default."""
    own = FACTS.gate_temperature
    return {value: DEFAULT if value == own else f"temperature {value:g}" for value in sorted({*size.temperatures, own})}
