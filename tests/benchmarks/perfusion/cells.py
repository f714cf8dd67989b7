"""Measures a cell: learns, draws and scores what is not in the store yet."""

from __future__ import annotations

import time
from dataclasses import asdict
from typing import Any

from tests.benchmarks.perfusion.ablations import ABLATIONS
from tests.benchmarks.perfusion.bench import Bench
from tests.benchmarks.perfusion.cell import ABLATION, Cell, arms
from tests.benchmarks.perfusion.methods import CAPTION, METHODS, prior_of, with_concept, without_training
from tests.benchmarks.perfusion.personalised import Personalised
from tests.benchmarks.perfusion.store import Result, nothing
from workers.engine.errors import TrainingDiverged
from workers.engine.perfusion.concept import ConceptFile
from workers.engine.storybook.captions import fullest_caption


def measure(bench: Bench, cell: Cell) -> Result:
    """Measure what is missing of one cell; return all that is known of it then."""
    result = bench.store.find_by_teacher(cell) or _measure_by_teacher(bench, cell)
    if cell.is_for_students and not result["diverged"]:
        for name in bench.store.student_folders:
            if bench.store.find_by_student(cell, name) is None:
                scores = bench.score(cell.individual, _by_student(bench, cell, name), cell.seeds(bench.size))
                bench.store.keep_by_student(cell, name, scores)
    found = bench.store.find(cell)
    assert found is not None
    return found


def _measure_by_teacher(bench: Bench, cell: Cell) -> Result:
    """Learn, draw and score every arm; a training that diverged scores nothing, and is noted to have."""
    made, cost = _learn(bench, cell)
    dials = arms(bench.size, cell)
    if made is None:
        scores = {arm: nothing() for arm in dials}
    else:
        scores = {
            arm: bench.score(cell.individual, made.dialled(**dial), cell.seeds(bench.size, arm))
            for arm, dial in dials.items()
        }
        if made.file is not None and cell.keeps_concept:
            made.file.save(bench.store.concept(cell))
    told = {"cell": asdict(cell), "caption": _caption(bench, cell), "diverged": made is None, **cost, "scores": scores}
    bench.store.keep(cell, told)
    return told


def _learn(bench: Bench, cell: Cell) -> tuple[Personalised | None, dict[str, Any]]:
    """Return what was learned, None where that diverged, and what it cost."""
    subject, teacher = bench.individuals[cell.individual], bench.teacher
    if cell.method == CAPTION:
        return without_training(teacher, _caption(bench, cell)), {"seconds": 0.0, "prior_samples": 0, "bytes": 0}
    settings = dict(cell.settings)
    if bench.size.concept_steps is not None:
        settings["steps"] = bench.size.concept_steps
    photos, kind = subject.photos()[: cell.photos], subject.identity.cls
    learner = ABLATIONS[cell.method] if cell.stage == ABLATION else METHODS[cell.method]
    prior = prior_of(teacher, kind, settings)  # drawn once, charged to all that learn from it
    started, made = time.process_time(), None
    try:
        made = learner.learn(teacher, photos, kind, settings)
    except TrainingDiverged as error:
        print(f"{cell.method} {dict(cell.settings)} diverged: {error}", flush=True)
    seconds = time.process_time() - started + (0.0 if prior is None else prior.seconds)
    cost = {"seconds": round(seconds, 2), "prior_samples": 0 if prior is None else prior.samples}
    return made, cost | {"bytes": 0 if made is None else made.bytes}


def _by_student(bench: Bench, cell: Cell, name: str) -> Personalised:
    """Return what a student draws: the concept that the teacher learned, or the caption."""
    student = bench.model(bench.store.students[name])
    if cell.method == CAPTION:
        return without_training(student, _caption(bench, cell))
    return with_concept(student, ConceptFile.load(bench.store.concept(cell)))


def _caption(bench: Bench, cell: Cell) -> str:
    return fullest_caption(bench.individuals[cell.individual].identity)
