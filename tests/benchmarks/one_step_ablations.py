"""What each part of the objective is for, in sign: students of one start and as many updates, each without one part.

They are read from the folders that the recipe's stage makes. One that is missing is said to be, and its target not met.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from statistics import pstdev

import torch

from tests.benchmarks.one_step_quality import graded_against_renders
from tests.benchmarks.one_step_setup import FREE, Models, Size, draw_set
from tests.benchmarks.report import Report, print_table
from workers.engine.base_model import BaseModel
from workers.engine.metrics import ClipGrader
from workers.engine.storybook.drawing import load_model
from workers.engine.storybook.scores import held_out

WHOLE = "full"
ONE_TO_ONE, FIVE_TO_ONE = "one-to-one", "no-regression"
WORSE = {"no-matching": WHOLE, ONE_TO_ONE: "full-one-to-one"}
"""What did without a part, and what is to be nearer to renders. DMD measures its regression at one update of the fake
score for each of the student's; at five, DMD2 finds that it is not needed, and leaves it out."""
ABLATIONS = (WHOLE, "no-matching", FIVE_TO_ONE, WORSE[ONE_TO_ONE], ONE_TO_ONE)

_FIRST_PROMPT, _FIRST_REAL = 5 << 30, 5 << 33


def measure_ablations(report: Report, models: Models, grader: ClipGrader, size: Size) -> None:
    """Measure each student that is there, and expect what the papers report."""
    prompts = [prompted.prompt for prompted in held_out(size.ablated, first=_FIRST_PROMPT)]
    folders = {name: models.others / name for name in ABLATIONS}
    swings: dict[str, float] = {}
    rows: list[tuple[str, float | str, float | str, float | str, float | str, int]] = []
    for name, folder in folders.items():
        there = (folder / "record.json").exists()
        report.add(f"{name} is there", float(there))
        report.expect(f"{name} is there", ">=", 1)
        if not there:
            rows.append((name, "missing", "", "", "", 0))
            continue
        record = json.loads((folder / "record.json").read_text())
        pictures = draw_set(folder, prompts, size, first_seed=0)
        graded = graded_against_renders(grader, pictures, prompts, first=_FIRST_REAL)
        swings[name] = swing_of(record)
        for figure in ("Frechet", "CMMD"):
            report.add(f"{figure}: {name}", graded[figure].value, baseline=graded[figure].floor)
        report.add(f"swing: {name}", swings[name])
        values = (graded["Frechet"].value, graded["CMMD"].value, swings[name], f"{record['seconds']:.0f}")
        rows.append((name, *values, size.ablated))
    _expect_signs(report, swings)
    print_table(
        "Students of one start, as many updates each; swing is how far their samples' mean strays",
        ("objective", "Frechet", "CMMD", "swing", "seconds", "N"),
        rows,
    )


def measure_locks(report: Report, models: Models) -> None:
    """Check that the key-locked student has its teacher's keys and values, bit for bit; a free one need not."""
    teacher = load_model(models.teacher)
    rows = []
    for name, folder in models.students.items():
        equal = has_keys_of(teacher, load_model(folder))
        report.add(f"{name} has its teacher's keys and values", float(equal))
        rows.append((name, str(equal)))
    report.expect("student has its teacher's keys and values", ">=", 1)
    print_table("Keys and values equal to the teacher's, bit for bit", ("student", "equal"), rows)


def has_keys_of(teacher: BaseModel, student: BaseModel) -> bool:
    """Say whether two models project text encodings by the same numbers."""
    one, other = teacher.projections, student.projections
    return torch.equal(one.keys, other.keys) and torch.equal(one.values, other.values)


def swing_of(record: Mapping[str, list[dict[str, float]]]) -> float:
    """Return how far the samples' mean strays over the second half of a run's reports: its standard deviation."""
    means = [report["sample_mean"] for report in record["signals"] if "sample_mean" in report]
    return pstdev(means[len(means) // 2 :])


def _expect_signs(report: Report, swings: Mapping[str, float]) -> None:
    for name, better in {**WORSE, FIVE_TO_ONE: WHOLE}.items():
        if {name, better} <= swings.keys():
            figure = f"Frechet: {name} over {better}"
            report.add(figure, report.figures[f"Frechet: {name}"] / report.figures[f"Frechet: {better}"])
            if name in WORSE:
                report.expect(figure, ">=", 1)
    if {ONE_TO_ONE, FIVE_TO_ONE} <= swings.keys():
        report.add("swing: one to one over five to one", swings[ONE_TO_ONE] / max(swings[FIVE_TO_ONE], 1e-9))
        report.expect("swing: one to one over five to one", ">=", 1)


def missing_folders(models: Models) -> list[Path]:
    """Return the folders that a whole run needs and that are not there."""
    wanted = [models.student, *(models.others / name for name in (FREE, *ABLATIONS))]
    return [folder for folder in wanted if not folder.exists()]
