"""Draws the plot of the comparison: image score against text score."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import matplotlib as mpl
from matplotlib import pyplot as plt
from matplotlib.axes import Axes

from tests.benchmarks.perfusion.cell import DEFAULT, bias_arms
from tests.benchmarks.perfusion.findings import AXES, PERFUSIONS, RIVALS, Findings
from tests.benchmarks.perfusion.intervals import Estimate, mean_of, values
from tests.benchmarks.perfusion.methods import CAPTION, METHODS


def draw_plot(findings: Findings, path: Path) -> None:
    """Draw every Perfusion's curve and every rival's point, judged and by CLIP.

    95 % intervals are of the points, and of the default's on a curve: all its points hang on the same individuals.
    """
    mpl.use("Agg")
    figure, sides = plt.subplots(1, 2, figsize=(12, 5))
    for side, (text, image) in zip(sides, AXES, strict=True):
        for perfusion in PERFUSIONS:
            results, lock = findings.of(perfusion), METHODS[perfusion].key_lock
            assert lock is not None
            arms = list(bias_arms(findings.size.biases, lock).values())
            points = [[mean_of(values(results, arm, axis)) for axis in (text, image)] for arm in arms]
            _plot(side, points, perfusion, certain=arms.index(DEFAULT))
        for rival in (*RIVALS, CAPTION):
            point = [mean_of(values(findings.of(rival), DEFAULT, axis)) for axis in (text, image)]
            _plot(side, [point], rival, certain=0)
        side.set_xlabel(f"{text} (the rest of the prompt is there)")
        side.set_ylabel(f"{image} (the individual is there)")
        side.grid(alpha=0.3)
    sides[0].legend(fontsize=8, loc="lower left")
    figure.tight_layout()
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=100, metadata={"Software": None})
    plt.close(figure)


def _plot(side: Axes, points: Sequence[Sequence[Estimate]], label: str, *, certain: int) -> None:
    """Draw estimates of (text, image), joined, with the intervals of one of them."""
    x, y = ([estimate.value for estimate in axis] for axis in zip(*points, strict=True))
    (line,) = side.plot(x, y, marker="s" if len(points) == 1 else "o", label=label)
    across, up = points[certain]
    errors = [[[one.value - one.low], [one.high - one.value]] for one in (across, up)]
    side.errorbar(
        across.value, up.value, xerr=errors[0], yerr=errors[1], color=line.get_color(), elinewidth=0.7, capsize=3
    )
