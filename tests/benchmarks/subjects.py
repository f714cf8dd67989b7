"""Held-out individuals that benchmarks learn concepts of, and how well pictures show them."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from itertools import count, islice
from multiprocessing import get_context
from pathlib import Path
from typing import TypeVar

import numpy as np
import torch
from PIL import Image

from core.catalog.facts import read_facts
from workers.engine.base_model import BaseModel
from workers.engine.conditioning import ConceptUse
from workers.engine.metrics import ClipGrader, clip_i, with_floor
from workers.engine.perfusion.concept import ConceptFile
from workers.engine.perfusion.config import PerfusionConfig
from workers.engine.perfusion.training import TrainingOrder, train_concept
from workers.engine.quiet import silence_loading
from workers.engine.storybook.identity import CLASSES, Identity, is_unseen
from workers.engine.storybook.judge_pictures import lookalikes, sightings
from workers.engine.storybook.judges import IdentityJudge, Pictures
from workers.engine.storybook.portrait import portraits

CANDIDATES, KNOWN = 10, 5
PHOTOS = 5

_FIRST_SUBJECT, _SUBJECT_STRIDE = 5 << 31, 1000
_Thing = TypeVar("_Thing")
_Made = TypeVar("_Made")


@dataclass(frozen=True)
class Subject:
    """A held-out individual, and others of the same class, colour and pattern that it must not be taken for."""

    number: int
    faces: tuple[Identity, ...]

    @property
    def identity(self) -> Identity:
        """The individual itself."""
        return self.faces[0]

    def photos(self) -> list[Image.Image]:
        """Render what a customer would upload."""
        return images(np.stack([picture.pixels for picture in portraits(self.identity, PHOTOS, seed=self.number)]))

    def known(self) -> list[Pictures]:
        """Render each face as the judge gets to know it."""
        return [sightings("held-out", self.number + 100 + k, face, KNOWN) for k, face in enumerate(self.faces)]

    def other_renders(self, number: int) -> Pictures:
        """Render the individual in ways that were not learned from."""
        return np.stack([picture.pixels for picture in portraits(self.identity, number, seed=self.number + 1)])


def subjects(number: int, kinds: Sequence[str] = CLASSES) -> list[Subject]:
    """Return individuals of these kinds in turn, in colours that the teacher has seen on them."""
    return list(islice(_subjects(kinds), number))


def _subjects(kinds: Sequence[str]) -> Iterator[Subject]:
    met: set[str] = set()
    for k in count():
        first = _FIRST_SUBJECT + k * _SUBJECT_STRIDE
        faces = lookalikes("held-out", first, CANDIDATES)
        identity = faces[0]
        if len(met) == len(kinds):
            met.clear()
        if identity.cls in kinds and identity.cls not in met and not is_unseen(identity.cls, identity.colour):
            met.add(identity.cls)
            yield Subject(first, tuple(faces))


def learn(teacher: BaseModel, subject: Subject, *, steps: int | None = None) -> ConceptFile:
    """Learn an individual as the model's own settings say, or in so many steps."""
    config = teacher.perfusion
    config = replace(config, steps=steps or config.steps)
    return learn_from(teacher, subject.photos(), subject.identity.cls, config)


def learn_from(base: BaseModel, photos: Sequence[Image.Image], superclass: str, config: PerfusionConfig) -> ConceptFile:
    """Train a concept from the seed 0, without checkpoints."""
    with tempfile.TemporaryDirectory() as folder:
        order = TrainingOrder(
            photos, superclass, replace(config, checkpoint_every=10_000), seed=0, checkpoints=Path(folder)
        )
        return train_concept(base, order)


def at_the_models_dial(base: BaseModel, folder: Path, name: str, file: ConceptFile) -> ConceptUse:
    """Return a concept as prompts of the model in ``folder`` use it by default, with the key lock of its training."""
    facts = read_facts(str(folder))
    return ConceptUse(
        name, base.adopt(file), facts.gate_bias[file.key_lock.value], facts.gate_temperature, file.key_lock
    )


def identity_share(judge: IdentityJudge, shown: Sequence[Subject], drawn: Sequence[Pictures]) -> float:
    """Return the share of pictures that the judge takes for the individual itself."""
    picks = [
        judge.pick(pictures, [list(renders) for renders in subject.known()])
        for subject, pictures in zip(shown, drawn, strict=True)
    ]
    return float(np.mean(np.array(picks) == 0))


def likeness_of(grader: ClipGrader, subject: Subject, pictures: Pictures) -> tuple[float, float]:
    """Return the CLIP-I of pictures and renders of the individual, and that of such renders among themselves."""
    real = grader.image_features(images(subject.other_renders(2 * len(pictures))))
    figure = with_floor(clip_i, grader.image_features(images(pictures)), real)
    return figure.value, figure.floor


def images(pictures: Pictures) -> list[Image.Image]:
    """Return pictures as what uploads and graders take."""
    return [Image.fromarray(picture) for picture in pictures]


def in_processes(processes: int, work: Callable[[_Thing], _Made], things: Sequence[_Thing]) -> list[_Made]:
    """Do the work on each thing, in processes of one thread each; in this one where one is enough."""
    if processes == 1:
        return [work(thing) for thing in things]
    with ProcessPoolExecutor(processes, mp_context=get_context("spawn"), initializer=settle) as pool:
        return list(pool.map(work, things))


def settle() -> None:
    """Make a new process one of one thread that says nothing of loading."""
    torch.set_num_threads(1)
    silence_loading()
