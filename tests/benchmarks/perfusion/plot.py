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
from tests.benchmarks.perfusion.methods import METHODS


def draw_plot(findings: Findings, path: Path) -> None:
    """Draw every Perfusion's curve and every rival's point, judged and by CLIP, with 95 % intervals."""
    mpl.use("Agg")
    figure, sides = plt.subplots(1, 2, figsize=(12, 5))
    for side, (text, image) in zip(sides, AXES, strict=True):
        for perfusion in PERFUSIONS:
            results, lock = findings.of(perfusion), METHODS[perfusion].key_lock
            assert lock is not None
            arms = bias_arms(findings.size.biases, lock).values()
            _plot(side, [[mean_of(values(results, arm, axis)) for axis in (text, image)] for arm in arms], perfusion)
        for rival in RIVALS:
            point = [mean_of(values(findings.of(rival), DEFAULT, axis)) for axis in (text, image)]
            _plot(side, [point], rival)
        side.set_xlabel(f"{text} (the rest of the prompt is there)")
        side.set_ylabel(f"{image} (the individual is there)")
        side.grid(alpha=0.3)
    sides[0].legend(fontsize=8)
    figure.tight_layout()
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=100, metadata={"Software": None})
    plt.close(figure)


def _plot(side: Axes, points: Sequence[Sequence[Estimate]], label: str) -> None:
    """Draw estimates of (text, image), joined, with their intervals."""
    across, up = zip(*points, strict=True)
    errors = [[[e.value - e.low for e in axis], [e.high - e.value for e in axis]] for axis in (across, up)]
    marker = "s" if len(points) == 1 else "o"
    x, y = ([e.value for e in axis] for axis in (across, up))
    side.errorbar(x, y, xerr=errors[0], yerr=errors[1], marker=marker, elinewidth=0.6, capsize=2, label=label)
