"""Measures the dial: one concept at many gate biases, from the pictures it was learned from to the words of the prompt.

Held-out individuals are learned once each. Then the same prompts are drawn from the same noise at every bias: the
lower, the more of the individual, the higher, the more of the text. Baselines are pictures from the same prompts with
the fullest caption in the concept's place.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from statistics import correlation, mean

import numpy as np
import torch

from tests.benchmarks.report import Report, argument_parser, print_table
from tests.benchmarks.subjects import (
    Subject,
    at_the_models_dial,
    identity_share,
    images,
    in_processes,
    learn,
    likeness_of,
    subjects,
)
from workers.engine.base_model import BaseModel
from workers.engine.conditioning import ConceptUse
from workers.engine.generation import GenerationRequest
from workers.engine.metrics import ClipGrader, clip_t
from workers.engine.quiet import silence_loading
from workers.engine.storybook.captions import fullest_caption
from workers.engine.storybook.drawing import draw_requests, load_model
from workers.engine.storybook.facts import GUIDANCE
from workers.engine.storybook.judges import IdentityJudge, Pictures
from workers.engine.storybook.sheet import write_grid

ROOT = Path(__file__).parents[2]
BIASES = (0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)
PROMPTS = (
    "{} wearing a red hat in the snow",
    "{} wearing blue sunglasses on the beach",
    "{} wearing a yellow scarf in the forest",
    "{} in the city at night",
    "{} in space",
    "a watercolor of {} in a room",
)
RANK_CORRELATION = 0.9
_FIRST_SEED = 13_000
_ON_STRIP = 3


@dataclass(frozen=True)
class Size:
    """How much is measured: every prompt at every bias from `seeds` seeds, for each individual."""

    individuals: int = 6
    biases: tuple[float, ...] = BIASES
    prompts: tuple[str, ...] = PROMPTS
    seeds: int = 2
    steps: int = 50
    concept_steps: int | None = None  # None: as many as the model's own settings say
    processes: int = 2


QUICK = Size(individuals=1, biases=(0.3, 0.8), prompts=PROMPTS[:2], seeds=1, steps=2, concept_steps=1, processes=1)


@dataclass(frozen=True)
class Drawn:
    """One individual's pictures: at each bias, and from the caption."""

    by_bias: tuple[Pictures, ...]
    caption: Pictures


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure everything, print it and say what was met."""
    parser = argument_parser("dial", __doc__)
    parser.add_argument("--model", type=Path, default=ROOT / "models" / "storybook")
    parser.add_argument("--judges", type=Path, default=ROOT / "models" / "storybook-judges")
    parser.add_argument("--grader", type=Path, default=ROOT / "models" / "storybook-grader", help="a CLIP folder")
    parser.add_argument("--strip", type=Path, metavar="PNG", help="draw individuals over the range here")
    given = parser.parse_args(arguments)
    size = QUICK if given.quick else Size()
    silence_loading()
    torch.set_num_threads(1)
    report, shown = Report(), subjects(size.individuals)
    drawn = in_processes(size.processes, partial(learn_and_draw, given.model, size=size), shown)
    measure(report, IdentityJudge.load(given.judges), ClipGrader.load(given.grader), shown, drawn, size=size)
    if given.strip is not None:
        write_strip(given.strip, shown, drawn)
    report.finish(given.json)


def learn_and_draw(model: Path, subject: Subject, *, size: Size) -> Drawn:
    """Learn one individual; draw every prompt at every bias, and with the caption in its place."""
    base = load_model(model)
    use = at_the_models_dial(base, model, "it", learn(base, subject, steps=size.concept_steps))
    return Drawn(
        tuple(_draw(base, "a <it>", (replace(use, gate_bias=bias),), size) for bias in size.biases),
        _draw(base, fullest_caption(subject.identity), (), size),
    )


def _draw(base: BaseModel, thing: str, concepts: tuple[ConceptUse, ...], size: Size) -> Pictures:
    side = base.native_size
    return draw_requests(
        base,
        [
            GenerationRequest(
                prompt.format(thing), _FIRST_SEED + seed, size.steps, GUIDANCE, side, side, concepts=concepts
            )
            for prompt in size.prompts
            for seed in range(size.seeds)
        ],
    )


def measure(
    report: Report,
    judge: IdentityJudge,
    grader: ClipGrader,
    shown: Sequence[Subject],
    drawn: Sequence[Drawn],
    *,
    size: Size,
) -> None:
    """Measure image and text scores at every bias, and how strictly they follow it."""

    def score(pictures: Sequence[Pictures]) -> tuple[float, float, float]:
        """Return CLIP-I, identity share and CLIP-T of all individuals' pictures."""
        likeness = mean(likeness_of(grader, *both)[0] for both in zip(shown, pictures, strict=True))
        text = mean(_text_score(grader, *both, size=size) for both in zip(shown, pictures, strict=True))
        return likeness, identity_share(judge, shown, pictures), text

    caption = score([one.caption for one in drawn])
    scores = [score([one.by_bias[k] for one in drawn]) for k in range(len(size.biases))]
    names = ("CLIP-I", "identity", "CLIP-T")
    for bias, values in zip(size.biases, scores, strict=True):
        for name, value, baseline in zip(names, values, caption, strict=True):
            report.add(f"{name} at {bias:g}", value, baseline=baseline)
    for name, values, sign in zip(names, zip(*scores, strict=True), (-1, -1, 1), strict=True):
        report.add(f"{name}: rank correlation with the bias", rank_correlation(size.biases, values))
        if name != "identity":  # a share of few pictures, with ties
            report.add(f"{name}: follows the bias", sign * report.figures[f"{name}: rank correlation with the bias"])
            report.expect(f"{name}: follows the bias", ">=", RANK_CORRELATION)
    rows = [(f"{bias:g}", *values) for bias, values in zip(size.biases, scores, strict=True)]
    print_table(
        f"{len(shown)} individuals, {len(drawn[0].caption)} pictures each at every bias",
        ("bias", *names),
        [*rows, ("caption", *caption)],
    )


def rank_correlation(first: Sequence[float], second: Sequence[float]) -> float:
    """Return Spearman's rho, with equal values in the order they come in."""
    return correlation(*(np.argsort(np.argsort(values, kind="stable")).tolist() for values in (first, second)))


def _text_score(grader: ClipGrader, subject: Subject, pictures: Pictures, *, size: Size) -> float:
    """Return CLIP-T against the prompts with the plain word in the concept's place, which says nothing of who it is."""
    prompts = [prompt.format(f"a {subject.identity.cls}") for prompt in size.prompts for _ in range(size.seeds)]
    return clip_t(grader.image_features(images(pictures)), grader.text_features(prompts))


def write_strip(path: Path, shown: Sequence[Subject], drawn: Sequence[Drawn]) -> None:
    """Draw a row for each of the first individuals: a picture of it, then one prompt at every bias, rising."""
    tiles: list[Pictures] = []
    for subject, pictures in list(zip(shown, drawn, strict=True))[:_ON_STRIP]:
        tiles += [np.asarray(subject.photos()[0]), *(some[0] for some in pictures.by_bias)]
    write_grid(tiles, path, columns=1 + len(drawn[0].by_bias))


if __name__ == "__main__":
    main()
