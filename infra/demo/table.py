"""The figures at the end: what it took, how large it is, and whether it worked."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from rich.table import Table

from infra.demo.judge import CANDIDATES, CHANCE, Verdict
from workers.engine.perfusion.concept import concept_size_bytes

# Stable Diffusion 1.5: two cross-attention layers at each of three widths on the way down, one in the middle, three
# at each width on the way up; CLIP ViT-L/14 as text encoder.
_SD15_WIDTHS = (*[320] * 2, *[640] * 2, *[1280] * 2, 1280, *[1280] * 3, *[640] * 3, *[320] * 3)
_SD15_ENCODER = 768


@dataclass(frozen=True)
class Timings:
    """Seconds; ``queue_wait`` is that of the training, a picture's are those of the engine alone."""

    upload: float
    queue_wait: float
    training: float
    generation: float
    pictures: int
    teacher_picture: float
    student_picture: float | None  # None: there is no student
    total: float


@dataclass(frozen=True)
class Verdicts:
    """What the judge said of the pictures with the concept, with the caption, and of a student's with the concept."""

    concept: Verdict
    caption: Verdict
    student: Verdict | None


@dataclass(frozen=True)
class Webhooks:
    """Deliveries as the server owes them and as the receiver saw them."""

    sent: int
    verified: int
    duplicates: int
    rejected: Sequence[str]
    missing: frozenset[str]


def figures(timings: Timings, concept_bytes: int, webhooks: Webhooks, verdicts: Verdicts) -> Table:
    """One table of everything that was measured."""
    table = Table(show_header=False, pad_edge=False)
    table.add_column(justify="left", no_wrap=True)
    table.add_column(justify="right", no_wrap=True)
    for group in (
        _timing_rows(timings),
        _size_rows(concept_bytes),
        _webhook_rows(webhooks),
        _judge_rows(verdicts),
    ):
        for name, value in group:
            table.add_row(name, value)
        table.add_section()
    return table


def problems(webhooks: Webhooks, verdicts: Verdicts) -> list[str]:
    """Why the demo did not show what it is meant to show; empty when it did."""
    found = [f"a webhook was rejected: {reason}" for reason in webhooks.rejected]
    if webhooks.missing:
        found.append(f"webhooks that did not arrive: {len(webhooks.missing)}")
    needed = 2 * max(verdicts.caption.share, CHANCE)
    if (known := verdicts.concept.share) < needed:
        found.append(f"the judge knew the creature in {known:.0%} of the pictures; {needed:.0%} are needed")
    return found


def _timing_rows(timings: Timings) -> list[tuple[str, str]]:
    each = timings.generation / timings.pictures
    rows = [
        ("upload", f"{timings.upload:.1f} s"),
        ("training: wait for a worker", f"{timings.queue_wait:.1f} s"),
        ("training", f"{timings.training:.1f} s"),
        (f"generation, {timings.pictures} pictures", f"{timings.generation:.1f} s ({each:.2f} s each)"),
        ("engine, one picture", f"{timings.teacher_picture:.3f} s"),
    ]
    if timings.student_picture is not None:
        faster = timings.teacher_picture / timings.student_picture
        rows.append(("engine, one picture in one step", f"{timings.student_picture:.3f} s ({faster:.0f} times faster)"))
    return [*rows, ("total", f"{timings.total:.1f} s")]


def _size_rows(concept_bytes: int) -> list[tuple[str, str]]:
    return [
        ("concept file, bundled model", f"{concept_bytes:,} bytes"),
        ("counted for Stable Diffusion 1.5", f"{concept_size_bytes(_SD15_WIDTHS, _SD15_ENCODER):,} bytes"),
    ]


def _webhook_rows(webhooks: Webhooks) -> list[tuple[str, str]]:
    return [
        ("webhooks sent", str(webhooks.sent)),
        ("verified", str(webhooks.verified)),
        ("rejected", str(len(webhooks.rejected))),
        ("received again", str(webhooks.duplicates)),
    ]


def _judge_rows(verdicts: Verdicts) -> list[tuple[str, str]]:
    rows = [(f"judge, 1 of {CANDIDATES}: with the concept", _score(verdicts.concept))]
    if verdicts.student is not None:
        rows.append(("with the concept, in one step", _score(verdicts.student)))
    return [*rows, ("with the fullest caption alone", _score(verdicts.caption)), ("by chance", f"{CHANCE:.0%}")]


def _score(verdict: Verdict) -> str:
    return f"{verdict.right} of {verdict.pictures} ({verdict.share:.0%})"
