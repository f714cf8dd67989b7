"""What the cells say: scores, curves above points and above curves, what students lose, and what is expected of it."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from tests.benchmarks.perfusion.ablations import ABLATIONS
from tests.benchmarks.perfusion.cell import ABLATION, DEFAULT, FEW, SCORE, Size, bias_arms
from tests.benchmarks.perfusion.intervals import Curve, Estimate, lift, lift_between, mean_of, reach, values
from tests.benchmarks.perfusion.methods import CAPTION, METHODS, WHOLE
from tests.benchmarks.perfusion.plan import AT_FEW, Chosen, Results, ablations_of, of_method
from tests.benchmarks.perfusion.store import SCORES, Store
from tests.benchmarks.report import Report
from workers.engine.perfusion.concept import KeyLock

Axes = tuple[str, str]
JUDGED: Final[Axes] = ("attributes", "identity")
GRADED: Final[Axes] = ("CLIP-T", "CLIP-I")
AXES: Final = (JUDGED, GRADED)
"""Text score and image score, by the judges and by CLIP."""
PERFUSIONS: Final = tuple(name for name, method in METHODS.items() if method.is_perfusion)
RIVALS: Final = tuple(name for name, method in METHODS.items() if not method.is_perfusion)

_PARTS_THAT_HELP: Final = ("without the mask", "training bias 0.4")  # as the paper's own ablations say


@dataclass(frozen=True)
class Findings:
    """What was measured, and with which settings."""

    size: Size
    store: Store
    results: Results
    chosen: Chosen

    def of(self, method: str, stage: str = SCORE) -> list[Mapping[str, Any]]:
        """Return one method's results, one for each individual."""
        return of_method(self.results, stage, method)

    @property
    def ablations(self) -> list[str]:
        """The ablations that were made."""
        return ablations_of(self.size, self.chosen)

    def lift_over(self, perfusion: str, rival: str, axes: Axes) -> Estimate:
        """Estimate how far a Perfusion's curve over the bias, and on to the caption's point, lies above a rival's."""
        (point,) = _curve_of(self.of(rival), (DEFAULT,), axes)
        return lift([*self._curve(perfusion, axes), *self._caption(axes, self.size.scored)], point)

    def reach_over(self, perfusion: str, rival: str) -> Estimate:
        """Estimate how much more of the prompt a Perfusion's curve reaches, by itself, than a rival shows."""
        (point,) = _curve_of(self.of(rival), (DEFAULT,), JUDGED)
        return reach(self._curve(perfusion, JUDGED), point)

    def lift_over_lock(self, perfusion: str, axes: Axes) -> Estimate:
        """Estimate how far the whole method's curve lies above that of another key lock."""
        caption = self._caption(axes, self.size.scored)
        return lift_between(self._curve(WHOLE, axes), self._curve(perfusion, axes), caption)

    def lift_over_ablation(self, name: str, axes: Axes) -> Estimate:
        """Estimate how far the curve with a part lies above that without it."""
        arms = bias_arms(self.size.ablated_biases, _lock(WHOLE)).values()
        one, other = (_curve_of(results, arms, axes) for results in self._with_and_without(name))
        return lift_between(one, other, self._caption(axes, self.size.ablated))

    def difference(self, name: str, score: str) -> Estimate:
        """Estimate by how much a score is higher with a part than without it, at the model's own dial."""
        one, other = (values(results, DEFAULT, score) for results in self._with_and_without(name))
        return mean_of(one - other)

    def loss(self, method: str, student: str, score: str) -> Estimate:
        """Estimate by how much the teacher's pictures of a concept score above a student's."""
        results = self.of(method)
        return mean_of(values(results, DEFAULT, score) - values(results, student, score))

    def _with_and_without(self, name: str) -> tuple[list[Mapping[str, Any]], list[Mapping[str, Any]]]:
        beside = ABLATIONS[name].beside
        found = self.of(WHOLE) if beside == WHOLE else self.of(beside, ABLATION)
        return [one for one in found if one["cell"]["individual"] in self.size.ablated], self.of(name, ABLATION)

    def _caption(self, axes: Axes, individuals: Collection[int]) -> Curve:
        """Return the one point of the caption, for these individuals."""
        found = [one for one in self.of(CAPTION) if one["cell"]["individual"] in individuals]
        return _curve_of(found, (DEFAULT,), axes)

    def _curve(self, perfusion: str, axes: Axes) -> Curve:
        return _curve_of(self.of(perfusion), bias_arms(self.size.biases, _lock(perfusion)).values(), axes)


def _curve_of(results: Sequence[Mapping[str, Any]], arms: Iterable[str], axes: Axes) -> Curve:
    text, image = axes
    return [(values(results, arm, text), values(results, arm, image)) for arm in arms]


def _lock(perfusion: str) -> KeyLock:
    lock = METHODS[perfusion].key_lock
    assert lock is not None
    return lock


def add_figures(report: Report, findings: Findings) -> None:
    """Note every figure, and the signs that are expected."""
    size = findings.size
    for method in (*METHODS, CAPTION):
        _add_scores(report, findings.of(method), f"{method}, {size.photos} pictures")
    for method in AT_FEW if size.few else ():
        _add_scores(report, findings.of(method, FEW), f"{method}, {size.few_photos} picture")
    for perfusion in PERFUSIONS:
        for rival in RIVALS:
            lifted, name = findings.lift_over(perfusion, rival, JUDGED), f"{perfusion} above {rival}"
            report.add(name, lifted.value)
            report.add(f"{name}, least", lifted.low)
            # The quick form has too few individuals for an interval to say anything: only the signs are to be the same.
            report.expect(f"{name}, least" if size.tuned else name, ">=", 0)
    _add_parts(report, findings)
    for student in findings.store.student_folders:
        for score in SCORES:
            report.add(f"{score}: lost by the {student}", findings.loss(WHOLE, student, score).value)


def _add_scores(report: Report, results: Sequence[Mapping[str, Any]], name: str) -> None:
    for score in SCORES:
        report.add(f"{score}: {name}", float(values(results, DEFAULT, score).mean()))


def _add_parts(report: Report, findings: Findings) -> None:
    """Note what each part of Perfusion is for, at no less text score."""
    name = "identity at no less attributes: whole over {}"
    for perfusion in PERFUSIONS:
        if perfusion != WHOLE:
            report.add(name.format(perfusion), findings.lift_over_lock(perfusion, JUDGED).value)
    report.expect(name.format("Perfusion, trained K"), ">=", 0)
    for part in findings.ablations:
        report.add(name.format(part), findings.lift_over_ablation(part, JUDGED).value)
        for score in SCORES:
            report.add(f"{score}: whole over {part}", findings.difference(part, score).value)
        if part in _PARTS_THAT_HELP:
            report.expect(name.format(part), ">=", 0)
