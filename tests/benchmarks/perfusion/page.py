"""Writes the page and the plot of the comparison from what the cells hold."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import mean
from typing import Any, Final

import matplotlib as mpl
from matplotlib import pyplot as plt
from matplotlib.axes import Axes

from tests.benchmarks.perfusion.ablations import ABLATIONS
from tests.benchmarks.perfusion.cells import ABLATION, DEFAULT, SCORE, Size, bias_arms, temperature_arms
from tests.benchmarks.perfusion.intervals import Estimate, lift, mean_of, values
from tests.benchmarks.perfusion.methods import CAPTION, METHODS, Settings
from tests.benchmarks.perfusion.plan import ABLATED, Results, of_method, scored, tuning
from tests.benchmarks.report import Report

SCORES: Final = ("identity", "CLIP-I", "attributes", "CLIP-T")
STUDENTS: Final = ("key-locked student", "free student")
_AXES: Final = (("attributes", "identity"), ("CLIP-T", "CLIP-I"))
_INTRODUCTION: Final = Path(__file__).with_name("introduction.md")


@dataclass(frozen=True)
class Findings:
    """What was measured, and with which settings."""

    size: Size
    results: Results
    chosen: Mapping[str, Settings]

    def of(self, method: str, *, stage: str = SCORE, photos: int | None = None) -> list[Mapping[str, Any]]:
        """Return one method's results, one for each individual."""
        return of_method(self.results, stage, method, photos or max(self.size.photos))

    def curve(self, method: str) -> dict[float, str]:
        """Return the arm of each bias of a Perfusion method."""
        lock = METHODS[method].key_lock
        assert lock is not None
        return bias_arms(lock)


def perfusions() -> list[str]:
    """Return the methods with a dial."""
    return [name for name, method in METHODS.items() if method.is_perfusion]


def rivals() -> list[str]:
    """Return all others, the caption among them."""
    return [*(name for name, method in METHODS.items() if not method.is_perfusion), CAPTION]


def add_figures(report: Report, findings: Findings) -> None:
    """Note every figure, and the signs that are expected."""
    for photos in findings.size.photos:
        for method in (*METHODS, CAPTION):
            results = findings.of(method, photos=photos)
            for score in SCORES if results else ():
                report.add(f"{score}: {method}, {photos} pictures", float(values(results, DEFAULT, score).mean()))
    for perfusion in perfusions():
        for rival in rivals():
            lifted = lift_of(findings, perfusion, rival, ("attributes", "identity"))
            report.add(f"{perfusion} above {rival}", lifted.value)
            report.add(f"{perfusion} above {rival}, least", lifted.low)
            report.expect(f"{perfusion} above {rival}, least", ">=", 0)
    for name in ABLATIONS:
        for score in ("identity", "attributes"):
            report.add(f"{score}: whole over {name}", ablation(findings, name, score).value)
    report.expect("identity: whole over without the mask", ">=", 0)
    report.expect("identity: whole over training bias 0.4", ">=", 0)


def lift_of(findings: Findings, perfusion: str, rival: str, axes: tuple[str, str]) -> Estimate:
    """Estimate how far a Perfusion's curve over the bias lies above a rival's point."""
    own, other = findings.of(perfusion), findings.of(rival)
    curve = [tuple(values(own, arm, axis) for axis in axes) for arm in findings.curve(perfusion).values()]
    text, image = (values(other, DEFAULT, axis) for axis in axes)
    return lift([(x, y) for x, y in curve], (text, image))


def ablation(findings: Findings, name: str, score: str) -> Estimate:
    """Estimate by how much the whole method's score is above that without a part, individual by individual."""
    whole, without = findings.of(ABLATED), findings.of(name, stage=ABLATION)
    return mean_of(values(whole, DEFAULT, score) - values(without, DEFAULT, score))


def write_page(findings: Findings, page: Path, plot: Path) -> None:
    """Write the page, and the plot that it shows."""
    draw_plot(findings, plot)
    parts = [
        _introduction(findings),
        f"![Image score against text score of every method]({_relative(plot, page)})",
        "## Every method at its default",
        *(_method_table(findings, photos) for photos in findings.size.photos),
        "## The curve over the bias against every rival's point",
        _lift_table(findings),
        "## What each part is for",
        _ablation_table(findings),
        "## The gate's temperature while drawing",
        _temperature_table(findings),
        "## In one step",
        _student_table(findings),
        "## What each method chose",
        _chosen_table(findings),
    ]
    page.parent.mkdir(parents=True, exist_ok=True)
    page.write_text("\n\n".join(parts) + "\n")


def _introduction(findings: Findings) -> str:
    size = findings.size
    return (
        _INTRODUCTION.read_text()
        .strip()
        .format(
            tuned=len(tuning(size)),
            scored=len(scored(size)),
            photos=" and ".join(map(str, size.photos)),
            trials="a choice of eight settings, made on the others" if size.trials > 1 else "one setting",
            wordings=len(range(0, 20, size.wording_stride)),
            seeds=size.seeds,
            steps=size.steps,
            training=size.concept_steps or "the model's own",
        )
    )


def draw_plot(findings: Findings, path: Path) -> None:
    """Draw image score against text score, judged and by CLIP, with 95 % intervals."""
    mpl.use("Agg")
    figure, sides = plt.subplots(1, 2, figsize=(12, 5))
    for side, (text, image) in zip(sides, _AXES, strict=True):
        for perfusion in perfusions():
            results = findings.of(perfusion)
            arms = findings.curve(perfusion).values()
            _plot(side, [[mean_of(values(results, arm, axis)) for axis in (text, image)] for arm in arms], perfusion)
        for rival in rivals():
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


def _method_table(findings: Findings, photos: int) -> str:
    rows = []
    for method in (*METHODS, CAPTION):
        results = findings.of(method, photos=photos)
        if results:
            scores = [str(mean_of(values(results, DEFAULT, score))) for score in SCORES]
            rows.append((method, *scores, f"{mean(r['seconds'] for r in results):.0f}", f"{_bytes(results):,}"))
    pictures = "picture" if photos == 1 else "pictures"
    return f"Learned from {photos} {pictures}:\n\n" + table(("method", *SCORES, "seconds", "bytes"), rows)


def _bytes(results: Sequence[Mapping[str, Any]]) -> int:
    return int(mean(result["bytes"] for result in results))


def _lift_table(findings: Findings) -> str:
    rows = [
        (perfusion, rival, *(str(lift_of(findings, perfusion, rival, axes)) for axes in _AXES))
        for perfusion in perfusions()
        for rival in rivals()
    ]
    return table(("curve of", "above the point of", "in identity", "in CLIP-I"), rows)


def _ablation_table(findings: Findings) -> str:
    rows = [(name, *(str(ablation(findings, name, score)) for score in SCORES)) for name in ABLATIONS]
    return table(("the whole method minus the one", *SCORES), rows)


def _temperature_table(findings: Findings) -> str:
    rows = [
        (f"{method}, {temperature:g}", *(str(mean_of(values(findings.of(method), arm, score))) for score in SCORES))
        for method in perfusions()
        for temperature, arm in temperature_arms().items()
    ]
    return table(("method, temperature", *SCORES), rows)


def _student_table(findings: Findings) -> str:
    return table(("method, drawn by", *SCORES), list(_student_rows(findings)))


def _student_rows(findings: Findings) -> Iterator[tuple[str, ...]]:
    for method in (*perfusions(), CAPTION):
        results = findings.of(method)
        for name in (DEFAULT, *STUDENTS):
            if all(name in result["scores"] for result in results):
                shown = "teacher" if name == DEFAULT else name
                yield (f"{method}, {shown}", *(str(mean_of(values(results, name, score))) for score in SCORES))


def _chosen_table(findings: Findings) -> str:
    rows = [
        (name, ", ".join(f"{key} {value}" for key, value in told.items())) for name, told in findings.chosen.items()
    ]
    return table(("method", "settings"), rows)


def table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return a Markdown table."""
    lines = [columns, ["---"] * len(columns), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _relative(plot: Path, page: Path) -> str:
    return Path(os.path.relpath(plot, page.parent)).as_posix()
