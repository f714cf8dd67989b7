"""One cell of the comparison: an individual learned by one method with one setting, drawn and scored.

A cell is one JSON file, so that a run that was stopped goes on where it was, and what is measured once is not again.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Final

import numpy as np
from torch import Tensor

from tests.benchmarks.perfusion.ablations import ABLATIONS
from tests.benchmarks.perfusion.methods import CAPTION, FACTS, METHODS, MODELS, TEACHER, Settings, without_training
from tests.benchmarks.perfusion.personalised import Personalised
from tests.benchmarks.perfusion.prompts import Wording, alone, wordings
from tests.benchmarks.subjects import Subject, images, subjects
from workers.engine.base_model import BaseModel
from workers.engine.metrics import ClipGrader, clip_i, clip_t, with_floor
from workers.engine.perfusion.concept import KeyLock
from workers.engine.storybook.captions import fullest_caption
from workers.engine.storybook.drawing import load_model
from workers.engine.storybook.identity import KINDS
from workers.engine.storybook.judges import AttributeJudge, IdentityJudge, Pictures

SEARCH, SCORE, ABLATION = "search", "score", "ablation"
DEFAULT: Final = "default"
BIASES: Final = (0.3, 0.4, 0.5, 0.6, 0.7, 0.8)
TEMPERATURES: Final = (0.05, 0.1, 0.15, 0.25)
_FIRST_SEED: Final = 21_000


@dataclass(frozen=True)
class Size:
    """How much is measured; ``steps`` are those of a picture, ``concept_steps`` those of a training if not its own."""

    individuals: int = 16
    tuning_stride: int = 4
    wording_stride: int = 1
    seeds: int = 4
    search_seeds: int = 1
    steps: int = 25
    concept_steps: int | None = None
    trials: int = 8
    photos: tuple[int, ...] = (5, 1)


@dataclass(frozen=True)
class Place:
    """Where results and the free student lie."""

    results: Path
    free_student: Path

    @property
    def students(self) -> dict[str, Path]:
        """Those that are there."""
        folders = {"key-locked student": MODELS / "storybook-student", "free student": self.free_student}
        return {name: folder for name, folder in folders.items() if folder.exists()}


@dataclass(frozen=True)
class Cell:
    """What is learned and how: ``settings`` override the method's own."""

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


@dataclass(frozen=True)
class Bench:
    """Everything that cells are measured with, opened when first needed."""

    place: Place
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
        return IdentityJudge.load(MODELS / "storybook-judges")

    @cached_property
    def attributes(self) -> AttributeJudge:
        """Reads attributes."""
        return AttributeJudge.load(MODELS / "storybook-judges")

    @cached_property
    def grader(self) -> ClipGrader:
        """A CLIP pair that no model was trained with."""
        return ClipGrader.load(MODELS / "storybook-grader")

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

    @cached_property
    def individuals(self) -> list[Subject]:
        """Held-out individuals of every kind."""
        return subjects(self.size.individuals, KINDS)


def measure(bench: Bench, cell: Cell) -> dict[str, Any]:
    """Learn, draw and score one cell, unless that was done; return what its file holds."""
    found = measured(bench.place, cell)
    if found is not None:
        return found
    subject = bench.individuals[cell.individual]
    settings = dict(cell.settings)
    if bench.size.concept_steps is not None:
        settings["steps"] = bench.size.concept_steps
    photos, kind = subject.photos()[: cell.photos], subject.identity.cls
    teacher = bench.teacher
    started = time.process_time()
    if cell.method == CAPTION:
        made = without_training(teacher, photos, kind, {"caption": fullest_caption(subject.identity)})
    else:
        learner = ABLATIONS[cell.method] if cell.stage == ABLATION else METHODS[cell.method]
        made = learner.learn(teacher, photos, kind, settings)
    seconds = time.process_time() - started
    asked = wordings(kind)[:: bench.size.wording_stride]
    seeds = bench.size.search_seeds if cell.stage == SEARCH else bench.size.seeds
    scores = {name: score(bench, cell.individual, arm, asked, seeds) for name, arm in _arms(bench, cell, made)}
    result = {"cell": asdict(cell), "kind": kind, "seconds": round(seconds, 2), "bytes": made.bytes, "scores": scores}
    path = _path(bench.place, cell)
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_suffix(".partial")
    draft.write_text(json.dumps(result, indent=1) + "\n")
    draft.replace(path)
    return result


def measured(place: Place, cell: Cell) -> dict[str, Any] | None:
    """Return what the cell's file holds, if it is there."""
    path = _path(place, cell)
    if not path.exists():
        return None
    found: dict[str, Any] = json.loads(path.read_text())
    return found


def _path(place: Place, cell: Cell) -> Path:
    return place.results / f"{cell.key}.json"


def _arms(bench: Bench, cell: Cell, made: Personalised) -> Iterator[tuple[str, Personalised]]:
    """Yield what is drawn of one training: as it is, over the dial, and by students."""
    yield DEFAULT, made
    if cell.stage != SCORE or cell.photos != max(bench.size.photos):
        return
    lock = None if cell.method == CAPTION else METHODS[cell.method].key_lock
    if lock is not None:
        for bias, arm in bias_arms(lock).items():
            if arm != DEFAULT:
                yield arm, made.dialled(gate_bias=bias)
        for temperature, arm in temperature_arms().items():
            if arm != DEFAULT:
                yield arm, made.dialled(gate_temperature=temperature)
    if lock is not None or cell.method == CAPTION:
        for name, folder in bench.place.students.items():
            yield name, Personalised(bench.model(folder), made.thing, made.bytes, made.uses)


def bias_arms(lock: KeyLock) -> dict[float, str]:
    """Return the arm that is drawn at each bias; the model's own is the default."""
    return {bias: DEFAULT if bias == FACTS.gate_bias[lock.value] else f"bias {bias:g}" for bias in BIASES}


def temperature_arms() -> dict[float, str]:
    """Return the arm that is drawn at each temperature; the model's own is the default."""
    return {value: DEFAULT if value == FACTS.gate_temperature else f"temperature {value:g}" for value in TEMPERATURES}


def score(bench: Bench, individual: int, made: Personalised, asked: Sequence[Wording], seeds: int) -> dict[str, float]:
    """Draw every wording from every seed; return identity, CLIP-I, attributes and CLIP-T."""
    repeated = [wording for wording in asked for _ in range(seeds)]
    pictures = made.draw([wording.text for wording in repeated], first_seed=_FIRST_SEED, steps=bench.size.steps)
    features, by_itself = bench.grader.image_features(images(pictures)), alone(repeated)  # (P, D)
    real = bench.references(individual, 2 * len(by_itself))
    said = bench.attributes.read(pictures)
    kind = bench.individuals[individual].identity.cls
    words = bench.grader.text_features([wording.text.format(f"a {kind}") for wording in repeated])
    picks = bench.identity.pick(pictures[by_itself], bench.faces(individual))
    return {
        "identity": float(np.mean(np.array(picks) == 0)),
        "CLIP-I": with_floor(clip_i, features[by_itself], real).value,
        "attributes": float(np.mean([one.share_right(read) for one, read in zip(repeated, said, strict=True)])),
        "CLIP-T": clip_t(features, words),
    }
