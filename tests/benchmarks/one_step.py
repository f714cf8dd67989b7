"""Measures one-step generation with the bundled model's students.

First the claim: concepts learned on the teacher, drawn by it in 50 guided steps and by its students in one. Then how
much sooner a student's picture is there and how near it comes to the teacher's, from the same prompts and noise. Then
what each part of the objective is for, by students that did without it.
"""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

import torch

from tests.benchmarks.one_step_ablations import measure_ablations, measure_locks, missing_folders
from tests.benchmarks.one_step_concepts import measure_concepts
from tests.benchmarks.one_step_quality import measure_quality
from tests.benchmarks.one_step_setup import MADE, QUICK, Models, Size, distil_toys
from tests.benchmarks.one_step_speed import measure_speed
from tests.benchmarks.report import Report, argument_parser
from workers.engine.metrics import ClipGrader
from workers.engine.quiet import silence_loading
from workers.engine.storybook.drawing import load_model
from workers.engine.storybook.judges import AttributeJudge, IdentityJudge

ROOT = Path(__file__).parents[2]


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure everything, print it and say what was met."""
    parser = argument_parser("one_step", __doc__)
    parser.add_argument("--model", type=Path, default=ROOT / "models" / "storybook", help="the teacher")
    parser.add_argument("--student", type=Path, help="the key-locked student's folder; in a quick run, distil toys")
    parser.add_argument("--others", type=Path, default=MADE, help="where the students lie that it is compared with")
    parser.add_argument("--judges", type=Path, default=ROOT / "models" / "storybook-judges")
    parser.add_argument("--grader", type=Path, default=ROOT / "models" / "storybook-grader", help="a CLIP folder")
    parser.add_argument("--processes", type=int, help="that learn and draw, of one thread each")
    parser.add_argument("--sheet", type=Path, metavar="PNG", help="draw concepts side by side here")
    given = parser.parse_args(arguments)
    size = QUICK if given.quick else Size()
    size = replace(size, processes=given.processes or size.processes)
    silence_loading()
    torch.set_num_threads(1)
    with ExitStack() as stack:
        if given.quick and given.student is None:
            models = distil_toys(given.model, Path(stack.enter_context(tempfile.TemporaryDirectory())))
        else:
            student = given.student or ROOT / "models" / "storybook-student"
            models = Models(given.model, student, given.others)
        if not models.student.exists():
            parser.error("there is no student yet: python -m workers.engine.storybook student")
        for folder in missing_folders(models):
            print(f"missing: {folder}")
        report = measure(models, given.judges, given.grader, size, sheet=given.sheet)
    report.finish(given.json)


def measure(models: Models, judges: Path, grader: Path, size: Size, *, sheet: Path | None) -> Report:
    """Measure everything and return the report."""
    report, clip = Report(), ClipGrader.load(grader)
    measure_concepts(report, models, IdentityJudge.load(judges), clip, size, sheet=sheet)
    measure_locks(report, models)
    measure_speed(report, load_model(models.teacher), load_model(models.student), size)
    measure_quality(report, models, AttributeJudge.load(judges), clip, size)
    measure_ablations(report, models, clip, size)
    return report


if __name__ == "__main__":
    main()
