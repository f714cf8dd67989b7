"""Writes the page of the comparison from what the cells hold."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from statistics import mean
from typing import Any, Final

from tests.benchmarks.perfusion.ablations import ABLATIONS
from tests.benchmarks.perfusion.cell import DEFAULT, FEW, SCORE, temperature_arms
from tests.benchmarks.perfusion.findings import AXES, GRADED, JUDGED, PERFUSIONS, RIVALS, Findings
from tests.benchmarks.perfusion.intervals import Estimate, mean_of, values
from tests.benchmarks.perfusion.methods import CAPTION, METHODS, WHOLE, Settings
from tests.benchmarks.perfusion.plan import AT_FEW
from tests.benchmarks.perfusion.plot import draw_plot
from tests.benchmarks.perfusion.prompts import wordings
from tests.benchmarks.perfusion.store import SCORES

_INTRODUCTION: Final = Path(__file__).with_name("introduction.md")
_ABOVE: Final = tuple(f"{image} at no less {text}" for text, image in AXES)


def write_page(findings: Findings, page: Path, plot: Path) -> None:
    """Write the page, and the plot that it shows."""
    draw_plot(findings, plot)
    parts = [
        _introduction(findings),
        f"![Image score against text score of every method]({_relative(plot, page)})",
        "## Every method at its default",
        _method_table(findings, (*METHODS, CAPTION), SCORE, findings.size.photos),
        *([_method_table(findings, AT_FEW, FEW, findings.size.few_photos)] if findings.size.few else []),
        _diverged(findings),
        "## The curve over the bias against every rival's point",
        *_lifts(findings),
        "## What each part is for",
        *_parts(findings),
        "## The gate's temperature while drawing",
        _temperature_table(findings),
        "## In one step",
        *_students(findings),
        "## What each method chose",
        *_choices(findings),
    ]
    page.parent.mkdir(parents=True, exist_ok=True)
    page.write_text("\n\n".join(parts) + "\n")


def _introduction(findings: Findings) -> str:
    size = findings.size
    searched = f"a choice of {len(METHODS[WHOLE].grid)} settings, made on {len(size.tuned)} other individuals"
    few = f"; {len(size.few)} of them from {size.few_photos}, too" if size.few else ""
    return (
        _INTRODUCTION.read_text()
        .strip()
        .format(
            scored=len(size.scored),
            photos=f"{size.photos}{few}",
            trials=searched if size.tuned else "settings that were settled beforehand",
            wordings=len(wordings("cat")[:: size.wording_stride]),
            seeds=size.seeds,
            fewer_seeds=size.fewer_seeds,
            steps=size.steps,
            training=size.concept_steps or "as many as the model's card says of",
        )
    )


def _method_table(findings: Findings, methods: Sequence[str], stage: str, photos: int) -> str:
    rows = []
    for method in methods:
        results = findings.of(method, stage)
        scores = [str(mean_of(values(results, DEFAULT, score))) for score in SCORES]
        seconds, samples = (f"{mean(result[name] for result in results):,.0f}" for name in ("seconds", "prior_samples"))
        rows.append((method, *scores, seconds, samples, f"{max(result['bytes'] for result in results):,}"))
    pictures = "picture" if photos == 1 else "pictures"
    columns = ("method", *SCORES, "seconds", "extra samples", "bytes")
    return f"Learned from {photos} {pictures}, by {len(results)} individuals:\n\n" + table(columns, rows)


def _diverged(findings: Findings) -> str:
    """Say which trainings came to nothing."""
    diverged = [result for result in findings.results.values() if result["diverged"]]
    if not diverged:
        return "No training diverged."
    told = [
        f"* {cell['stage']}: {cell['method']}, {_settings(cell['settings'])}, {result['caption']}"
        for result in diverged
        for cell in [result["cell"]]
    ]
    said = "These trainings diverged. Their scores count as 0; a setting that did so in the search is not chosen:"
    return "\n".join([said, "", *told])


def _lifts(findings: Findings) -> Iterator[str]:
    """Yield where Perfusion's curves lie above the rivals' points, in words and figures."""
    yield (
        "How much more of the individual can be had than a rival shows, with no less of the prompt. Some pictures "
        "may be drawn at one bias and some at another, and some by the caption, for whoever wants more of the "
        "prompt than the curve reaches: so the curve is joined by straight lines, to the caption's point in the "
        "end. How far it reaches by itself, beyond the rival's share of attributes, is in the last column; a rival "
        "with more of CLIP-T than even the caption is compared with what has most. The best of several biases is "
        "taken on the individuals that are scored, which flatters a curve a little beside a point."
    )
    lifted = {(one, other): findings.lift_over(one, other, JUDGED) for one in PERFUSIONS for other in RIVALS}
    yield "\n".join(
        f"* {perfusion}: " + "; ".join(_verdict(findings, lifted[perfusion, rival], rival) for rival in RIVALS) + "."
        for perfusion in PERFUSIONS
    )
    rows = [
        (*pair, str(judged), str(findings.lift_over(*pair, GRADED)), str(findings.reach_over(*pair)))
        for pair, judged in lifted.items()
    ]
    rows += [(perfusion, CAPTION, "", "", str(findings.reach_over(perfusion, CAPTION))) for perfusion in PERFUSIONS]
    yield table(("curve of", "above the point of", *_ABOVE, "reach in attributes"), rows)


def _verdict(findings: Findings, lifted: Estimate, rival: str) -> str:
    """Say plainly whether a curve lies above a rival's point; the quick form's individuals are too few to be sure."""
    if lifted.low > 0 and findings.size.tuned:
        return f"**above** {rival}"
    if lifted.high < 0 and findings.size.tuned:
        return f"**below** {rival}"
    return f"{'above' if lifted.value > 0 else 'below'} {rival}, which may be chance"


def _parts(findings: Findings) -> Iterator[str]:
    """Yield the differences to other key locks, which are curves only, and to the ablations; and what follows."""
    lifts: dict[tuple[str, str], list[Estimate]] = {}
    for perfusion in PERFUSIONS:
        if perfusion != WHOLE:
            lifts[WHOLE, perfusion] = [findings.lift_over_lock(perfusion, axes) for axes in AXES]
    for name in findings.ablations:
        lifts[ABLATIONS[name].beside, name] = [findings.lift_over_ablation(name, axes) for axes in AXES]
    yield (
        "By how much one is above the other: its curve over the bias, joined to the caption as above, over the other's "
        "points, less the same the other way round, halved; and, at the model's own dial, its scores. "
        f"{_ablated(findings)} "
        "[many-concepts.md](many-concepts.md) compares the exact projection of several concepts with the naive sum."
    )
    rows = [(*pair, *map(str, lifted), *_differences(findings, pair[1])) for pair, lifted in lifts.items()]
    yield table(("one", "the other", *_ABOVE, *SCORES), rows)
    if findings.size.tuned:
        yield _advice({name: judged for (_, name), (judged, _) in lifts.items()})


def _differences(findings: Findings, name: str) -> list[str]:
    known = name in findings.ablations
    return [str(findings.difference(name, score)) if known else "" for score in SCORES]


def _advice(lifts: Mapping[str, Estimate]) -> str:
    """Say what the measurements say of the defaults."""
    better = [name for name, lifted in lifts.items() if lifted.high < 0]
    worse = [name for name, lifted in lifts.items() if lifted.low > 0]
    said = f"By more than chance the defaults are better than: {', '.join(worse) or 'none of these'}. "
    if better:
        return f"{said}By more than chance these are better, and should be the defaults: {', '.join(better)}."
    return f"{said}None of these is better than they are by more than chance, so they stay."


def _ablated(findings: Findings) -> str:
    count = len(findings.size.ablated)
    return f"Ablations are of {count} individuals." if count else "Ablations are not measured yet."


def _temperature_table(findings: Findings) -> str:
    results = findings.of(WHOLE)
    rows = [
        (f"{temperature:g}", *(str(mean_of(values(results, arm, score))) for score in SCORES))
        for temperature, arm in temperature_arms(findings.size).items()
    ]
    return f"Of {WHOLE}, at the model's own bias:\n\n" + table(("temperature", *SCORES), rows)


def _students(findings: Findings) -> Iterator[str]:
    """Yield what students make of what the teacher learned, on average and one by one."""
    present = list(findings.store.student_folders)
    missing = [name for name in findings.store.students if name not in present]
    yield (
        "Concepts are learned on the teacher alone. The student is the one that ships, which is key-locked; the "
        "free one was distilled like it but for its keys."
    )
    if missing:
        yield f"Missing, and so not measured: {', '.join(missing)}."
    rows = [
        (method, "teacher" if name == DEFAULT else name, *(str(mean_of(values(results, name, one))) for one in SCORES))
        for method in (*PERFUSIONS, CAPTION)
        for results in [findings.of(method)]
        for name in (DEFAULT, *present)
    ]
    yield table(("method", "drawn by", *SCORES), rows)
    if present:
        yield f"What is lost of each concept ({WHOLE}), the teacher's score minus the student's:"
        yield _losses(findings, present)


def _losses(findings: Findings, students: Sequence[str]) -> str:
    image, text = JUDGED[1], JUDGED[0]
    columns = [f"{score}, {student}" for student in students for score in (image, text)]
    rows = []
    for result in findings.of(WHOLE):
        own, scores = result["scores"][DEFAULT], result["scores"]
        lost = [own[one] - scores[student][one] for student in students for one in (image, text)]
        rows.append((result["caption"], *(f"{own[one]:.3f}" for one in (image, text)), *(f"{one:.3f}" for one in lost)))
    means = [str(mean_of(values(findings.of(WHOLE), DEFAULT, one))) for one in (image, text)]
    means += [str(findings.loss(WHOLE, student, one)) for student in students for one in (image, text)]
    return table(("individual", f"{image}, teacher", f"{text}, teacher", *columns), [*rows, ("all", *means)])


def _choices(findings: Findings) -> Iterator[str]:
    rows = []
    for name, method in METHODS.items():
        chosen = findings.chosen[name]
        if not findings.size.tuned or method.grid:
            rows.append((name, _settings(chosen) or "the model's own", ", ".join(at_the_edge(chosen, method.grid))))
        else:
            rows.append((name, f"as {WHOLE}", ""))
    if findings.size.tuned:
        yield (
            "Where a number is the least or the largest of those that were tried, a better one may lie beyond: that is "
            "said in the last column. All else of Perfusion is as the model's card has it."
        )
    yield table(("method", "settings", "at the edge of what was tried"), rows)


def at_the_edge(chosen: Settings, grid: Sequence[Settings]) -> list[str]:
    """Return the numbers that are the least or the largest of a grid, in words."""
    told = []
    for name, value in chosen.items():
        tried = sorted({settings[name] for settings in grid if name in settings})
        if not isinstance(value, bool) and len(tried) > 1 and value in {tried[0], tried[-1]}:
            told.append(f"{name} {value:g} (of {tried[0]:g} to {tried[-1]:g})")
    return told


def _settings(settings: Mapping[str, Any]) -> str:
    return ", ".join(f"{name} {value}" for name, value in settings.items())


def table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return a Markdown table."""
    lines = [columns, ["---"] * len(columns), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _relative(plot: Path, page: Path) -> str:
    return Path(os.path.relpath(plot, page.parent)).as_posix()
