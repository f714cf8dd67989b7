"""Compares Perfusion with its rivals and writes the page about it: `python -m tests.benchmarks.perfusion`."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from tests.benchmarks.one_step_setup import MADE, students_in
from tests.benchmarks.perfusion.bench import Bench
from tests.benchmarks.perfusion.cell import Size
from tests.benchmarks.perfusion.comparison import compare
from tests.benchmarks.perfusion.findings import add_figures
from tests.benchmarks.perfusion.methods import MODELS
from tests.benchmarks.perfusion.page import write_page
from tests.benchmarks.perfusion.plan import without_the_rest
from tests.benchmarks.perfusion.store import Store
from tests.benchmarks.report import Report, argument_parser

ROOT: Final = Path(__file__).parents[3]
QUICK: Final = Size(
    tuned=(),
    scored=(5, 10, 14),  # a cat, a fish, a teapot
    ablated=(5, 10, 14),
    few=(),
    ablations=("without the mask", "training bias 0.4"),
    wording_stride=2,
    seeds=1,
    fewer_seeds=1,
    steps=15,
    concept_steps=120,
    biases=(0.5, 0.7, 0.85, 1.0),
    temperatures=(0.1,),
)


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure what is not measured yet; write the page once the methods are compared, and once all is measured."""
    parser = argument_parser("perfusion", __doc__)
    parser.add_argument("--student", type=Path, default=MODELS / "storybook-student", help="the key-locked student")
    parser.add_argument("--others", type=Path, default=MADE, help="where the students of equal budgets lie")
    parser.add_argument("--results", type=Path, default=Path(".lockstep/perfusion"), help="a file for each cell")
    parser.add_argument("--page", type=Path, help="write the page here")
    parser.add_argument("--plot", type=Path, help="and its plot here")
    parser.add_argument("--minutes", type=float, default=math.inf, help="how long to go on for")
    parser.add_argument("--processes", type=int, default=2, help="of one thread each")
    given = parser.parse_args(arguments)
    size = QUICK if given.quick else Size()
    store = Store.open(given.results, students_in(given.student, given.others), size)
    until = time.monotonic() + 60 * given.minutes
    page = given.page or (store.folder / "perfusion.md" if given.quick else ROOT / "docs/benchmarks/perfusion.md")
    plot = given.plot or (store.folder / "perfusion.png" if given.quick else ROOT / "docs/images/perfusion.png")
    for stage in (without_the_rest(size), size):
        findings = compare(Bench(store, stage), processes=given.processes, until=until)
        if findings is None:
            print("the time is up; the same command goes on from here")
            return
        write_page(findings, page, plot)
        print(page.read_text())
        report = Report()
        add_figures(report, findings)
        report.finish(given.json)


if __name__ == "__main__":
    main()
