"""Measures several concepts in one picture, each learned by itself: who is in it, and is it what the prompt says.

Families of a cat, a dog, a chair and sunglasses are learned, five pictures and one training each. Then prompts that
name two or three of them are drawn from the same noise in three ways: by the exact projection that the product uses, by
the naive sum of the single edits, which takes out what concepts have in common once for each of them, and with the
fullest captions in the concepts' places. Judges look at the part of the picture where the thing is to be.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from random import Random
from statistics import mean
from unittest.mock import patch

import numpy as np
import torch
from torch import Tensor

from tests.benchmarks.families import (
    ARRANGEMENTS,
    PLACES,
    WORN,
    Arrangement,
    Family,
    families,
    lineup,
    looked_at,
    render,
)
from tests.benchmarks.report import Report, argument_parser, print_table
from tests.benchmarks.subjects import CANDIDATES, at_the_models_dial, in_processes, learn
from workers.engine import conditioning
from workers.engine.base_model import BaseModel
from workers.engine.conditioning import ConceptUse
from workers.engine.generation import GenerationRequest
from workers.engine.perfusion.edit import edit_coefficients
from workers.engine.quiet import silence_loading
from workers.engine.storybook.captions import fullest_caption
from workers.engine.storybook.drawing import draw_requests, load_model
from workers.engine.storybook.facts import GUIDANCE
from workers.engine.storybook.judges import AttributeJudge, IdentityJudge, Pictures
from workers.engine.storybook.sheet import write_grid

ROOT = Path(__file__).parents[2]
EXACT, NAIVE, WORDS = "exact", "naive sum", "captions"
BEYOND_WORDS = 2.0  # times as often known as from words
_FIRST_SEED = 11_000
_MOST_MEMBERS = 3


@dataclass(frozen=True)
class Size:
    """How much is measured: each family in each arrangement, in `places` places from `seeds` seeds each."""

    families: int = 3
    places: int = len(PLACES)
    seeds: int = 4
    steps: int = 50
    concept_steps: int | None = None  # None: as many as the model's own settings say
    processes: int = 2


QUICK = Size(families=1, places=1, seeds=1, steps=2, concept_steps=1, processes=1)

Drawn = dict[tuple[str, str], Pictures]
"""One family's pictures by arrangement and way."""


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure everything, print it and say what was met."""
    parser = argument_parser("many_concepts", __doc__)
    parser.add_argument("--model", type=Path, default=ROOT / "models" / "storybook")
    parser.add_argument("--judges", type=Path, default=ROOT / "models" / "storybook-judges")
    parser.add_argument("--sheet", type=Path, metavar="PNG", help="draw the first family's pictures here")
    given = parser.parse_args(arguments)
    size = QUICK if given.quick else Size()
    silence_loading()
    torch.set_num_threads(1)
    report, shown = Report(), families(size.families)
    drawn = in_processes(size.processes, partial(learn_and_draw, given.model, size=size), shown)
    measure_identities(report, IdentityJudge.load(given.judges), shown, drawn)
    measure_attributes(report, AttributeJudge.load(given.judges), shown, drawn)
    if given.sheet is not None:
        write_sheet(given.sheet, shown[0], drawn[0], size)
    report.finish(given.json)


def learn_and_draw(model: Path, family: Family, *, size: Size) -> Drawn:
    """Learn each member by itself; draw every arrangement in every way from the same noise."""
    base = load_model(model)
    uses = {
        role: at_the_models_dial(base, model, role, learn(base, subject, steps=size.concept_steps))
        for role, subject in family.items()
    }
    drawn: Drawn = {}
    for name, arrangement in ARRANGEMENTS.items():
        placeholders = {role: f"<{role}>" if role == WORN else f"a <{role}>" for role in arrangement.roles}
        captions = {role: fullest_caption(family[role].identity) for role in arrangement.roles}
        concepts = tuple(uses[role] for role in arrangement.roles)
        drawn[name, EXACT] = _draw(base, arrangement.wording.format(**placeholders), concepts, size)
        with naive_sum():
            drawn[name, NAIVE] = _draw(base, arrangement.wording.format(**placeholders), concepts, size)
        drawn[name, WORDS] = _draw(base, arrangement.wording.format(**captions), (), size)
    return drawn


@contextmanager
def naive_sum() -> Iterator[None]:
    """Edit as if no two concepts had anything in common: each takes out its own alignment with a token."""

    def coefficients(
        encodings: Tensor, targets: Tensor, metric: Tensor, bias: Tensor, temperature: Tensor
    ) -> tuple[Tensor, Tensor]:
        alone = [
            edit_coefficients(encodings, target[:, None], metric, beta[:, None], tau[:, None])
            for target, beta, tau in zip(targets.unbind(1), bias.unbind(1), temperature.unbind(1), strict=True)
        ]
        removals, gates = zip(*alone, strict=True)
        return torch.cat(removals, -1), torch.cat(gates, -1)

    with patch.object(conditioning, "edit_coefficients", coefficients):
        yield


def _draw(base: BaseModel, words: str, concepts: tuple[ConceptUse, ...], size: Size) -> Pictures:
    side = base.native_size
    return draw_requests(
        base,
        [
            GenerationRequest(
                f"{words} {place}", _FIRST_SEED + seed, size.steps, GUIDANCE, side, side, concepts=concepts
            )
            for place in list(PLACES)[: size.places]
            for seed in range(size.seeds)
        ],
    )


def measure_identities(report: Report, judge: IdentityJudge, shown: Sequence[Family], drawn: Sequence[Drawn]) -> None:
    """Measure how often each member is taken for itself and not for one of nine that words cannot tell from it."""
    rows: list[tuple[str, float, float, float, float, int]] = []
    for name, arrangement in ARRANGEMENTS.items():
        for role, spot in arrangement.spots.items():
            right: dict[str, list[int]] = {way: [] for way in (EXACT, NAIVE, WORDS, "renders")}
            for family, pictures in zip(shown, drawn, strict=True):
                candidates = [list(renders) for renders in lineup(family, arrangement, role)]
                truth = {member: subject.identity for member, subject in family.items()}
                count = len(pictures[name, EXACT])
                ideal = render(Random(family[role].number + 1), truth, arrangement, count)
                seen = {way: pictures[name, way] for way in (EXACT, NAIVE, WORDS)} | {"renders": ideal}
                for way, some in seen.items():
                    right[way] += [pick == 0 for pick in judge.pick(looked_at(some, spot), candidates)]
            exact, naive, words, renders = (mean(right[way]) for way in right)
            report.add(f"identity of the {role}, {name}", exact, baseline=words)
            report.add(f"identity of the {role}, {name}, naive sum", naive)
            report.add(f"identity of the {role}, {name}, renders", renders)
            rows.append((f"{name}: {role}", exact, naive, words, renders, len(right[EXACT])))
    exact, naive, words, renders = (mean(shares) for shares in list(zip(*rows, strict=True))[1:5])
    report.add("identity", exact, baseline=words)
    report.add("identity, naive sum", naive)
    report.add("identity over that of captions", exact / max(words, 1 / CANDIDATES))
    report.add("identity beyond the naive sum's", exact - naive)
    report.expect("identity over that of captions", ">=", BEYOND_WORDS)
    report.expect("identity beyond the naive sum's", ">=", 0.0)
    print_table(
        f"Taken for the right one of {CANDIDATES}",
        ("picture: who", EXACT, NAIVE, WORDS, "renders", "N"),
        [*rows, ("mean", exact, naive, words, renders, sum(row[5] for row in rows))],
    )


def measure_attributes(report: Report, judge: AttributeJudge, shown: Sequence[Family], drawn: Sequence[Drawn]) -> None:
    """Measure how often the picture holds what the prompt names: each class in its place, and the cat's colour."""
    rows = []
    for name, arrangement in ARRANGEMENTS.items():
        due = [_attributes(arrangement, family) for family in shown]
        said = {
            way: [judge.read(pictures[name, way]) for pictures in drawn] for way in (EXACT, NAIVE, WORDS)
        }  # by family and picture
        for attribute in due[0]:
            exact, naive, words = (
                mean(
                    one[attribute] == wanted[attribute] for wanted, read in zip(due, some, strict=True) for one in read
                )
                for some in said.values()
            )
            report.add(f"{attribute}, {name}", exact, baseline=words)
            report.add(f"{attribute}, {name}, naive sum", naive)
            rows.append((f"{name}: {attribute}", exact, naive, words, sum(map(len, said[EXACT]))))
    print_table("Attributes read rightly", ("picture: what", EXACT, NAIVE, WORDS, "N"), rows)


def _attributes(arrangement: Arrangement, family: Family) -> dict[str, str]:
    """Return what a judge should read off a picture of this arrangement."""
    standing = [role for role in arrangement.roles if role != WORN]
    due = dict(zip(("class", "right class"), standing, strict=False))
    due["colour"] = family[standing[0]].identity.colour
    return due | ({"accessory": WORN} if WORN in arrangement.roles else {})


def write_sheet(path: Path, family: Family, drawn: Drawn, size: Size) -> None:
    """Draw a row for each arrangement: a picture of each member, then each way's, one from each place."""
    tiles: list[Pictures] = []
    for name, arrangement in ARRANGEMENTS.items():
        members = [np.asarray(family[role].photos()[0]) for role in arrangement.roles]
        tiles += [*members, *[np.full_like(members[0], 255)] * (_MOST_MEMBERS - len(members))]
        for way in (EXACT, NAIVE, WORDS):
            tiles += list(drawn[name, way][:: size.seeds])
    write_grid(tiles, path, columns=_MOST_MEMBERS + 3 * size.places)


if __name__ == "__main__":
    main()
