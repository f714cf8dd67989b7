"""Which cells there are, in what order, and which setting each method chose."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from statistics import harmonic_mean, mean
from typing import Any, Final

from tests.benchmarks.perfusion.ablations import ABLATIONS
from tests.benchmarks.perfusion.cells import ABLATION, DEFAULT, SCORE, SEARCH, Cell, Size
from tests.benchmarks.perfusion.methods import CAPTION, METHODS, Settings

Results = Mapping[str, Mapping[str, Any]]
"""What cells' files hold, by the cell's key."""
ABLATED: Final = "Perfusion, local"


def tuning(size: Size) -> list[int]:
    """Return the individuals that settings are chosen on."""
    return list(range(0, size.individuals, size.tuning_stride))


def scored(size: Size) -> list[int]:
    """Return all others."""
    return [k for k in range(size.individuals) if k not in tuning(size)]


def search_cells(size: Size) -> list[Cell]:
    """Return every method with every setting on the tuning individuals."""
    return [
        Cell(SEARCH, name, settings, individual, max(size.photos))
        for name, method in METHODS.items()
        for settings in method.grid[: size.trials]
        for individual in tuning(size)
    ]


def choose(size: Size, results: Results) -> dict[str, Settings]:
    """Return each method's best setting: by the harmonic mean of identity and attributes over the individuals."""
    chosen = {}
    for name, method in METHODS.items():

        def worth(settings: Settings, name: str = name) -> float:
            cells = [Cell(SEARCH, name, settings, k, max(size.photos)) for k in tuning(size)]
            scores = [results[cell.key]["scores"][DEFAULT] for cell in cells]
            return float(harmonic_mean([mean(score[axis] for score in scores) for axis in ("identity", "attributes")]))

        chosen[name] = max(method.grid[: size.trials], key=worth)
    return chosen


def scoring_cells(size: Size, chosen: Mapping[str, Settings]) -> list[Cell]:
    """Return what is scored, the fewest pictures last, then the ablations."""
    return [*_compared(size, chosen), *_ablated(size, chosen)]


def _compared(size: Size, chosen: Mapping[str, Settings]) -> Iterator[Cell]:
    for photos in size.photos:
        for individual in scored(size):
            for name, settings in chosen.items():
                yield Cell(SCORE, name, settings, individual, photos)
            if photos == max(size.photos):
                yield Cell(SCORE, CAPTION, {}, individual, photos)


def _ablated(size: Size, chosen: Mapping[str, Settings]) -> Iterator[Cell]:
    for name in ABLATIONS:
        for individual in scored(size):
            yield Cell(ABLATION, name, chosen[ABLATED], individual, max(size.photos))


def of_method(results: Results, stage: str, method: str, photos: int) -> list[Mapping[str, Any]]:
    """Return the results of one method, one for each individual, in their order."""
    wanted = {"stage": stage, "method": method, "photos": photos}
    found = [result for result in results.values() if wanted.items() <= result["cell"].items()]
    return sorted(found, key=lambda result: int(result["cell"]["individual"]))
