"""Which cells there are, in what order, and which setting each method chose."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from statistics import harmonic_mean, mean
from typing import Any, Final

from tests.benchmarks.perfusion.ablations import ABLATIONS
from tests.benchmarks.perfusion.cell import ABLATION, DEFAULT, FEW, SCORE, SEARCH, Cell, Size
from tests.benchmarks.perfusion.methods import CAPTION, METHODS, WHOLE, Settings

Results = Mapping[str, Mapping[str, Any]]
"""What is known of cells, by the cell's key."""
Chosen = Mapping[str, Settings]
AT_FEW: Final = tuple(name for name, method in METHODS.items() if name == WHOLE or not method.is_perfusion)
"""Methods that are compared at few pictures."""


def search_cells(size: Size) -> list[Cell]:
    """Return every method with every setting on the tuning individuals."""
    return [
        Cell(SEARCH, name, settings, individual, size.photos)
        for individual in size.tuned
        for name, method in METHODS.items()
        for settings in method.grid
    ]


def choose(size: Size, results: Results) -> dict[str, Settings]:
    """Return each method's best setting: by the harmonic mean of identity and attributes over the individuals.

    A setting that diverged on any of them is out; raises ValueError for a method that is left with none.
    """
    if not size.tuned:
        return {name: method.settled for name, method in METHODS.items()}
    best = {name: _best(size, results, name) for name, method in METHODS.items() if method.grid}
    return {name: best.get(name, best[WHOLE]) for name in METHODS}


def _best(size: Size, results: Results, name: str) -> Settings:
    worth: list[tuple[float, Settings]] = []
    for settings in METHODS[name].grid:
        cells = [results[Cell(SEARCH, name, settings, k, size.photos).key] for k in size.tuned]
        if not any(cell["diverged"] for cell in cells):
            scores = [cell["scores"][DEFAULT] for cell in cells]
            means = [mean(score[axis] for score in scores) for axis in ("identity", "attributes")]
            worth.append((float(harmonic_mean(means)), settings))
    if not worth:
        raise ValueError(f"{name} diverged with every setting")
    return max(worth, key=lambda one: one[0])[1]


def without_the_rest(size: Size) -> Size:
    """Return what suffices to compare the methods: the rest takes as long again."""
    return replace(size, ablated=(), ablations=(), few=())


def scoring_cells(size: Size, chosen: Chosen) -> list[Cell]:
    """Return what is scored, the most telling first, each individual with everything before the next."""
    return [*_compared(size, chosen), *_ablated(size, chosen), *_at_few(size, chosen)]


def _compared(size: Size, chosen: Chosen) -> Iterator[Cell]:
    for individual in size.scored:
        for name, settings in chosen.items():
            yield Cell(SCORE, name, settings, individual, size.photos)
        yield Cell(SCORE, CAPTION, {}, individual, size.photos)


def _ablated(size: Size, chosen: Chosen) -> Iterator[Cell]:
    for individual in size.ablated:
        for name in ablations_of(size, chosen):
            yield Cell(ABLATION, name, chosen[WHOLE], individual, size.photos)


def _at_few(size: Size, chosen: Chosen) -> Iterator[Cell]:
    for individual in size.few:
        for name in AT_FEW:
            yield Cell(FEW, name, chosen[name], individual, size.few_photos)


def ablations_of(size: Size, chosen: Chosen) -> list[str]:
    """Return the ablations that change anything of the whole method."""
    return [name for name in size.ablations if ABLATIONS[name].changes(chosen[WHOLE])]


def of_method(results: Results, stage: str, method: str) -> list[Mapping[str, Any]]:
    """Return the results of one method at one stage, one for each individual, in their order."""
    wanted = {"stage": stage, "method": method}
    found = [result for result in results.values() if wanted.items() <= result["cell"].items()]
    return sorted(found, key=lambda result: int(result["cell"]["individual"]))
