"""The claim: a concept learned on the teacher is drawn by its students, unchanged, in one step.

Held-out individuals are learned from five pictures each, on the teacher alone. Then the same prompts are drawn from the
same noise by every model, with the concept and, beside it, with the fullest caption that words allow instead.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from itertools import count, islice
from multiprocessing import get_context
from pathlib import Path
from statistics import mean

import numpy as np
import torch
from PIL import Image

from tests.benchmarks.one_step_setup import Models, Size, drawing_of
from tests.benchmarks.report import Report, print_table
from workers.engine.base_model import BaseModel
from workers.engine.conditioning import ConceptUse
from workers.engine.generation import GenerationRequest, generate
from workers.engine.metrics import ClipGrader, clip_i, with_floor
from workers.engine.perfusion.concept import ConceptFile
from workers.engine.perfusion.training import TrainingOrder, train_concept
from workers.engine.quiet import silence_loading
from workers.engine.storybook.captions import fullest_caption
from workers.engine.storybook.drawing import load_model
from workers.engine.storybook.identity import CLASSES, Identity, is_unseen
from workers.engine.storybook.judge_pictures import lookalikes, sightings
from workers.engine.storybook.judges import IdentityJudge, Pictures
from workers.engine.storybook.portrait import portraits
from workers.engine.storybook.sheet import write_grid

SETTINGS = (
    "{}",
    "{} in the snow",
    "{} on the beach",
    "{} in the forest",
    "{} in the city",
    "{} in a room",
    "{} on a white background",
    "a picture of {}",
)
CANDIDATES, KNOWN = 10, 5
PHOTOS = 5
KEPT_IDENTITY, KEPT_CLIP_I, BEYOND_CAPTION = 0.8, 0.9, 0.1

_FIRST_SUBJECT, _SUBJECT_STRIDE, _FIRST_SEED = 5 << 31, 1000, 7000
_ON_SHEET = 2


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
        return _images(np.stack([picture.pixels for picture in portraits(self.identity, PHOTOS, seed=self.number)]))

    def known(self) -> list[Pictures]:
        """Render each face as the judge gets to know it."""
        return [sightings("held-out", self.number + 100 + k, face, KNOWN) for k, face in enumerate(self.faces)]

    def other_renders(self, number: int) -> Pictures:
        """Render the individual in ways that were not learned from."""
        return np.stack([picture.pixels for picture in portraits(self.identity, number, seed=self.number + 1)])


def subjects(number: int) -> list[Subject]:
    """Return individuals of as many classes, in a colour that the teacher has seen on that class."""
    return list(islice(_subjects(), number))


def _subjects() -> Iterator[Subject]:
    met: set[str] = set()
    for k in count():
        first = _FIRST_SUBJECT + k * _SUBJECT_STRIDE
        faces = lookalikes("held-out", first, CANDIDATES)
        identity = faces[0]
        if len(met) == len(CLASSES):
            met.clear()
        if identity.cls in CLASSES and identity.cls not in met and not is_unseen(identity.cls, identity.colour):
            met.add(identity.cls)
            yield Subject(first, tuple(faces))


def measure_concepts(
    report: Report, models: Models, judge: IdentityJudge, grader: ClipGrader, size: Size, *, sheet: Path | None
) -> None:
    """Measure how well each model shows the individuals, and draw the sheet."""
    shown = subjects(size.individuals)
    drawn = _learn_and_draw_all(models, shown, size)
    rows = []
    for arm in drawn[0]:
        identity = _identity(judge, shown, [pictures[arm] for pictures in drawn])
        likeness = [_likeness(grader, subject, pictures[arm]) for subject, pictures in zip(shown, drawn, strict=True)]
        values, floors = zip(*likeness, strict=True)
        rows.append((arm, identity, mean(values), mean(floors), size.individuals * size.pictures))
    by_arm = {arm: (identity, likeness) for arm, identity, likeness, _, _ in rows}
    for name in ("teacher", *models.students):
        (identity, likeness), (bare_identity, bare_likeness) = by_arm[f"{name}, concept"], by_arm[f"{name}, caption"]
        report.add(f"concept identity: {name}", identity, baseline=bare_identity)
        report.add(f"concept CLIP-I: {name}", likeness, baseline=bare_likeness)
    report.add(
        "concept identity: renders",
        _identity(judge, shown, [subject.other_renders(size.pictures) for subject in shown]),
    )
    report.add("concept CLIP-I: renders", mean(floor for _, _, _, floor, _ in rows))
    _expect(report, models)
    print_table(
        f"Concepts of {size.individuals} held-out individuals: share taken for the right one of {CANDIDATES}",
        ("drawn by", "identity", "CLIP-I", "CLIP-I of renders", "N"),
        rows,
    )
    if sheet is not None:
        _write_sheet(sheet, shown, drawn, ["teacher, concept", "student, concept", "student, caption"])


def _expect(report: Report, models: Models) -> None:
    for name in models.students:
        for figure in ("concept identity", "concept CLIP-I"):
            value, teacher = report.figures[f"{figure}: {name}"], report.figures[f"{figure}: teacher"]
            report.add(f"{figure}: {name} over teacher", value / max(teacher, 1e-9))
        report.add(
            f"concept identity: {name} beyond its caption",
            report.figures[f"concept identity: {name}"] - report.baseline[f"concept identity: {name}"],
        )
    report.expect("concept identity: student over teacher", ">=", KEPT_IDENTITY)
    report.expect("concept CLIP-I: student over teacher", ">=", KEPT_CLIP_I)
    report.expect("concept identity: student beyond its caption", ">=", BEYOND_CAPTION)


def _learn_and_draw_all(models: Models, shown: Sequence[Subject], size: Size) -> list[dict[str, Pictures]]:
    if size.processes == 1:
        return [learn_and_draw(models, subject, size) for subject in shown]
    with ProcessPoolExecutor(size.processes, mp_context=get_context("spawn"), initializer=_settle) as pool:
        return [run.result() for run in [pool.submit(learn_and_draw, models, subject, size) for subject in shown]]


def _settle() -> None:
    torch.set_num_threads(1)
    silence_loading()


def learn_and_draw(models: Models, subject: Subject, size: Size) -> dict[str, Pictures]:
    """Learn one individual on the teacher; return what every model makes of the concept and of the caption."""
    teacher = load_model(models.teacher)
    with tempfile.TemporaryDirectory() as folder:
        file = _learn(teacher, subject, size, Path(folder))
    dials = json.loads((models.teacher / "lockstep.json").read_text())
    drawn = {}
    for name, path in {"teacher": models.teacher, **models.students}.items():
        base = teacher if path == models.teacher else load_model(path)
        concept = base.adopt(file)
        use = ConceptUse(
            "it", concept, gate_bias=dials["gate_bias"]["local"], gate_temperature=dials["gate_temperature"]
        )
        drawn[f"{name}, concept"] = _draw(base, path, "a <it>", (use,), size)
        drawn[f"{name}, caption"] = _draw(base, path, fullest_caption(subject.identity), (), size)
    return drawn


def _learn(teacher: BaseModel, subject: Subject, size: Size, folder: Path) -> ConceptFile:
    config = teacher.perfusion
    config = replace(config, steps=size.concept_steps or config.steps, checkpoint_every=10_000)
    order = TrainingOrder(subject.photos(), subject.identity.cls, config, seed=0, checkpoints=folder)
    return train_concept(teacher, order)


def _draw(base: BaseModel, folder: Path, thing: str, uses: tuple[ConceptUse, ...], size: Size) -> Pictures:
    how, side = drawing_of(folder, size.steps, first_seed=_FIRST_SEED), base.native_size
    requests = [
        GenerationRequest(
            SETTINGS[k % len(SETTINGS)].format(thing),
            how.first_seed + k,
            how.steps,
            how.guidance,
            side,
            side,
            concepts=uses,
        )
        for k in range(size.pictures)
    ]
    answers = generate(base, requests, batch_size=16, on_progress=lambda _done, _due: None, should_stop=lambda: False)
    errors = [answer for answer in answers if isinstance(answer, Exception)]
    if errors:
        raise errors[0]
    return np.stack([np.asarray(answer) for answer in answers])


def _identity(judge: IdentityJudge, shown: Sequence[Subject], drawn: Sequence[Pictures]) -> float:
    """Return the share of pictures that the judge takes for the individual itself."""
    picks = [
        judge.pick(pictures, [list(renders) for renders in subject.known()])
        for subject, pictures in zip(shown, drawn, strict=True)
    ]
    return float(np.mean(np.array(picks) == 0))


def _likeness(grader: ClipGrader, subject: Subject, pictures: Pictures) -> tuple[float, float]:
    """Return the CLIP-I of pictures and renders of the individual, and that of such renders among themselves."""
    real = grader.image_features(_images(subject.other_renders(2 * len(pictures))))
    figure = with_floor(clip_i, grader.image_features(_images(pictures)), real)
    return figure.value, figure.floor


def _write_sheet(
    path: Path, shown: Sequence[Subject], drawn: Sequence[Mapping[str, Pictures]], arms: Sequence[str]
) -> None:
    """Draw a row for each individual: what was learned from, then each arm from the same prompts and noise."""
    tiles: list[Pictures] = []
    for subject, pictures in zip(shown, drawn, strict=True):
        tiles += [np.asarray(photo) for photo in subject.photos()[:_ON_SHEET]]
        for arm in arms:
            tiles += list(pictures[arm][1 : 1 + _ON_SHEET] if len(pictures[arm]) > _ON_SHEET else pictures[arm])
    write_grid(tiles, path, columns=_ON_SHEET * (1 + len(arms)))


def _images(pictures: Pictures) -> list[Image.Image]:
    return [Image.fromarray(picture) for picture in pictures]
