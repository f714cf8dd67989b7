"""Measures all cells that there are, as far as the time goes, in processes of one thread each.

What a process does is here and not in `__main__`, which spawned processes do not import from a package.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Executor, ProcessPoolExecutor, as_completed
from multiprocessing import get_context
from typing import TypeVar

from tests.benchmarks.perfusion.bench import Bench
from tests.benchmarks.perfusion.cell import DEFAULT, Cell
from tests.benchmarks.perfusion.cells import measure
from tests.benchmarks.perfusion.findings import Findings
from tests.benchmarks.perfusion.plan import choose, scoring_cells, search_cells
from tests.benchmarks.perfusion.store import Result
from tests.benchmarks.subjects import settle

_Thing = TypeVar("_Thing")
_Made = TypeVar("_Made")


def compare(bench: Bench, *, processes: int, until: float) -> Findings | None:
    """Search settings, score everything with them; None where the time did not suffice."""
    searched = _measure_all(bench, search_cells(bench.size), processes=processes, until=until)
    if searched is None:
        return None
    chosen = choose(bench.size, searched)
    scored = _measure_all(bench, scoring_cells(bench.size, chosen), processes=processes, until=until)
    return None if scored is None else Findings(bench.size, bench.store, searched | scored, chosen)


def _measure_all(bench: Bench, cells: Sequence[Cell], *, processes: int, until: float) -> dict[str, Result] | None:
    """Measure what is missing, and say how far it is; None where the time is up before the last."""
    results = {cell.key: found for cell in cells if (found := bench.store.find(cell)) is not None}
    missing = [cell for cell in cells if cell.key not in results]
    for cell, result in _in_turn(bench, missing, processes=processes, until=until):
        results[cell.key] = result
        told = {name: round(value, 3) for name, value in result["scores"][DEFAULT].items()}
        print(f"{len(results)} of {len(cells)}: {cell.stage} {cell.method} {dict(cell.settings)} {told}", flush=True)
    return results if len(results) == len(cells) else None


def _in_turn(bench: Bench, cells: Sequence[Cell], *, processes: int, until: float) -> Iterator[tuple[Cell, Result]]:
    """Measure cells as long as there is time, in processes of one thread each; in this one where one is enough."""
    if not cells or time.monotonic() >= until:
        return
    if processes == 1:
        _open(bench, until)
        measured = ((cell, _measure(cell)) for cell in cells)
        yield from ((cell, result) for cell, result in measured if result is not None)
        return
    context = get_context("spawn")
    with ProcessPoolExecutor(processes, mp_context=context, initializer=_open, initargs=(bench, until)) as pool:
        for cell, result in completed(pool, _measure, cells):
            if result is not None:
                yield cell, result


def completed(
    pool: Executor, work: Callable[[_Thing], _Made], things: Sequence[_Thing]
) -> Iterator[tuple[_Thing, _Made]]:
    """Yield each thing with what came of it, as it comes; what waits is not begun any more once one has failed."""
    waiting = {pool.submit(work, thing): thing for thing in things}
    try:
        for done in as_completed(waiting):
            yield waiting[done], done.result()
    except BaseException:
        pool.shutdown(wait=False, cancel_futures=True)
        raise


_here: dict[str, tuple[Bench, float]] = {}


def _open(bench: Bench, until: float) -> None:
    settle()
    _here["bench"] = (bench, until)


def _measure(cell: Cell) -> Result | None:
    bench, until = _here["bench"]
    return None if time.monotonic() >= until else measure(bench, cell)
