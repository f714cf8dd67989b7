"""The claim: a concept learned on the teacher is drawn by its students, unchanged, in one step.

Held-out individuals are learned from five pictures each, on the teacher alone. Then the same prompts are drawn from the
same noise by every model, with the concept and, beside it, with the fullest caption that words allow instead.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from statistics import mean

import numpy as np

from tests.benchmarks.one_step_setup import Models, Size, drawing_of
from tests.benchmarks.report import Report, print_table
from tests.benchmarks.subjects import (
    CANDIDATES,
    Subject,
    at_the_models_dial,
    identity_share,
    in_processes,
    learn,
    likeness_of,
    subjects,
)
from workers.engine.base_model import BaseModel
from workers.engine.conditioning import ConceptUse
from workers.engine.generation import GenerationRequest
from workers.engine.metrics import ClipGrader
from workers.engine.storybook.captions import fullest_caption
from workers.engine.storybook.drawing import draw_requests, load_model
from workers.engine.storybook.judges import IdentityJudge, Pictures
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
KEPT_IDENTITY, KEPT_CLIP_I, BEYOND_CAPTION = 0.8, 0.9, 0.1

_FIRST_SEED = 7000
_ON_SHEET = 2


def measure_concepts(
    report: Report, models: Models, judge: IdentityJudge, grader: ClipGrader, size: Size, *, sheet: Path | None
) -> None:
    """Measure how well each model shows the individuals, and draw the sheet."""
    shown = subjects(size.individuals)
    drawn = _learn_and_draw_all(models, shown, size)
    rows = []
    for arm in drawn[0]:
        identity = identity_share(judge, shown, [pictures[arm] for pictures in drawn])
        likeness = [likeness_of(grader, subject, pictures[arm]) for subject, pictures in zip(shown, drawn, strict=True)]
        values, floors = zip(*likeness, strict=True)
        rows.append((arm, identity, mean(values), mean(floors), size.individuals * size.pictures))
    by_arm = {arm: (identity, likeness) for arm, identity, likeness, _, _ in rows}
    for name in ("teacher", *models.students):
        (identity, likeness), (bare_identity, bare_likeness) = by_arm[f"{name}, concept"], by_arm[f"{name}, caption"]
        report.add(f"concept identity: {name}", identity, baseline=bare_identity)
        report.add(f"concept CLIP-I: {name}", likeness, baseline=bare_likeness)
    report.add(
        "concept identity: renders",
        identity_share(judge, shown, [subject.other_renders(size.pictures) for subject in shown]),
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
    return in_processes(size.processes, partial(learn_and_draw, models, size=size), shown)


def learn_and_draw(models: Models, subject: Subject, size: Size) -> dict[str, Pictures]:
    """Learn one individual on the teacher; return what every model makes of the concept and of the caption."""
    teacher = load_model(models.teacher)
    file = learn(teacher, subject, steps=size.concept_steps)
    drawn = {}
    for name, path in {"teacher": models.teacher, **models.students}.items():
        base = teacher if path == models.teacher else load_model(path)
        use = at_the_models_dial(base, models.teacher, "it", file)
        drawn[f"{name}, concept"] = _draw(base, path, "a <it>", (use,), size)
        drawn[f"{name}, caption"] = _draw(base, path, fullest_caption(subject.identity), (), size)
    return drawn


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
    return draw_requests(base, requests)


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
