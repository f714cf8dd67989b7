"""Compares Perfusion with its rivals and writes the page about it: `python -m tests.benchmarks.perfusion`."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from multiprocessing import get_context
from pathlib import Path
from typing import Any, Final

import torch

from tests.benchmarks.perfusion.cells import Bench, Cell, Place, Size, measure, measured
from tests.benchmarks.perfusion.methods import METHODS
from tests.benchmarks.perfusion.page import Findings, add_figures, write_page
from tests.benchmarks.perfusion.plan import choose, scoring_cells, search_cells
from tests.benchmarks.report import Report, argument_parser
from workers.engine.quiet import silence_loading

ROOT: Final = Path(__file__).parents[3]
QUICK: Final = Size(individuals=4, wording_stride=2, seeds=1, steps=15, concept_steps=120, trials=1, photos=(5,))


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure what is not measured yet; once all is, write the page and say what was met."""
    parser = argument_parser("perfusion", __doc__)
    parser.add_argument("--free", type=Path, default=Path(".lockstep/storybook/students/students/free"))
    parser.add_argument("--results", type=Path, default=Path(".lockstep/perfusion"), help="a file for each cell")
    parser.add_argument("--page", type=Path, help="write the page here")
    parser.add_argument("--plot", type=Path, help="and its plot here")
    parser.add_argument("--minutes", type=float, default=math.inf, help="how long to go on for")
    parser.add_argument("--processes", type=int, default=2, help="of one thread each")
    given = parser.parse_args(arguments)
    size = QUICK if given.quick else Size()
    results = given.results / "quick" if given.quick else given.results
    place = Place(results, given.free)
    findings = compare(place, size, processes=given.processes, until=time.monotonic() + 60 * given.minutes)
    if findings is None:
        print("the time is up; the same command goes on from here")
        return
    report = Report()
    add_figures(report, findings)
    page = given.page or (results / "perfusion.md" if given.quick else ROOT / "docs/benchmarks/perfusion.md")
    plot = given.plot or (results / "perfusion.png" if given.quick else ROOT / "docs/images/perfusion.png")
    write_page(findings, page, plot)
    print(page.read_text())
    report.finish(given.json)


def compare(place: Place, size: Size, *, processes: int, until: float) -> Findings | None:
    """Search settings, score everything with them; None where the time did not suffice."""
    if size.trials > 1:
        searched = _measure_all(place, size, search_cells(size), processes=processes, until=until)
        if searched is None:
            return None
        chosen = choose(size, searched)
    else:
        chosen = {name: method.settled for name, method in METHODS.items()}
    scored = _measure_all(place, size, scoring_cells(size, chosen), processes=processes, until=until)
    return None if scored is None else Findings(size, scored, chosen)


def _measure_all(
    place: Place, size: Size, cells: Sequence[Cell], *, processes: int, until: float
) -> Mapping[str, Mapping[str, Any]] | None:
    """Measure cells in processes, and say how far it is; None where the time is up before the last."""
    results: dict[str, Mapping[str, Any]] = {cell.key: found for cell in cells if (found := measured(place, cell))}
    missing = [cell for cell in cells if cell.key not in results]
    if not missing or time.monotonic() >= until:
        return None if missing else results
    with ProcessPoolExecutor(
        processes, mp_context=get_context("spawn"), initializer=_open, initargs=(Bench(place, size), until)
    ) as pool:
        waiting = {pool.submit(_measure, cell): cell for cell in missing}
        for done in as_completed(waiting):
            result, cell = done.result(), waiting[done]
            if result is None:
                continue
            results[cell.key] = result
            told = {name: round(value, 3) for name, value in result["scores"]["default"].items()}
            print(
                f"{len(results)} of {len(cells)}: {cell.stage} {cell.method} {dict(cell.settings)} {told}", flush=True
            )
    return results if len(results) == len(cells) else None


_here: dict[str, tuple[Bench, float]] = {}


def _open(bench: Bench, until: float) -> None:
    torch.set_num_threads(1)
    silence_loading()
    _here["bench"] = (bench, until)


def _measure(cell: Cell) -> dict[str, Any] | None:
    bench, until = _here["bench"]
    return None if time.monotonic() >= until else measure(bench, cell)


if __name__ == "__main__":
    main()
