"""Measures the bundled model: does it follow prompts, can the judges be trusted, how long does a picture take.

Every score of generated pictures stands between two others: the judge's score on renders of the very same compositions,
which is the most that it can mean, and the score of the same pictures against each other's prompts, which is what a
model reaches that never reads them.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import median
from typing import Final

import numpy as np

from workers.engine.base_model import BaseModel
from workers.engine.storybook.captions import caption
from workers.engine.storybook.drawing import Drawing, draw
from workers.engine.storybook.identity import is_unseen, split_rng
from workers.engine.storybook.judge_pictures import draw_compositions, lookalikes, sightings
from workers.engine.storybook.judges import AttributeJudge, IdentityJudge, Pictures
from workers.engine.storybook.sampling import ATTRIBUTES, OUTDOORS, labels, sample_composition
from workers.engine.storybook.world import Composition

HELD_OUT: Final = replace(OUTDOORS, accessory=0.4, pair=0.2, unseen=True)
"""What is asked for: everything that the world can show, also what training keeps apart."""

_FIRST_GROUP: Final = 1 << 31


@dataclass(frozen=True)
class Prompted:
    """A composition of the held-out split, and all that words say of it."""

    prompt: str
    composition: Composition


@dataclass(frozen=True)
class Score:
    """Share of right answers: of generated pictures, of theirs to other prompts, and of renders; `count` of each."""

    generated: float
    shuffled: float
    rendered: float
    count: int


@dataclass(frozen=True)
class Accuracy:
    """Share of right answers among `count`."""

    share: float
    count: int


@dataclass(frozen=True)
class ModelScores:
    """All that the model card reports: `following` was measured at `steps` steps, `seconds` is for `default_steps`."""

    following: Mapping[str, Score]
    identity: Accuracy
    seconds: float
    steps: int
    default_steps: int
    guidance: float


@dataclass(frozen=True)
class _Question:
    """What must be right of those pictures that can show all of it, and of which of them it is asked."""

    attributes: tuple[str, ...]
    asked_of: Callable[[Composition], bool] = lambda _composition: True
    unordered: bool = False

    def asked(self, composition: Composition) -> bool:
        return self.asked_of(composition) and all(name in labels(composition) for name in self.attributes)

    def right(self, said: Mapping[str, str], composition: Composition) -> bool:
        wanted = labels(composition)
        answers, due = ([values[name] for name in self.attributes] for values in (said, wanted))
        return sorted(answers) == sorted(due) if self.unordered else answers == due


def _wears(composition: Composition) -> bool:
    return composition.instances[0].worn is not None


def _bare(composition: Composition) -> bool:
    return not _wears(composition)


def _alone(composition: Composition) -> bool:
    return len(composition.instances) == 1


def _unseen(composition: Composition) -> bool:
    return is_unseen(composition.instances[0].identity.cls, composition.instances[0].identity.colour)


def _seen(composition: Composition) -> bool:
    return not _unseen(composition)


_QUESTIONS: Final[dict[str, _Question]] = {
    "class": _Question(("class",)),
    "scene": _Question(("scene",)),
    "style": _Question(("style",)),
    "colour": _Question(("colour",)),
    "accessory": _Question(("accessory",), _wears),
    "both classes of a pair": _Question(("class", "right class"), unordered=True),
    "pattern": _Question(("pattern",)),
    "night": _Question(("night",)),
    "count": _Question(("count",)),
    "no accessory": _Question(("accessory",), _bare),
    "class of a single thing": _Question(("class",), _alone),
    "class, seen in that colour": _Question(("class",), _seen),
    "class, never seen in that colour": _Question(("class",), _unseen),
    "colour, seen on that class": _Question(("colour",), _seen),
    "colour, never seen on that class": _Question(("colour",), _unseen),
    "class, colour and scene": _Question(("class", "colour", "scene")),
}
"""Of two things the left one is asked about, unless it says both."""


def held_out(count: int, *, first: int) -> list[Prompted]:
    """Draw compositions that share no seed with a training picture, from number `first` on."""
    drawn = []
    for k in range(first, first + count):
        rng = split_rng("held-out", k)
        composition = sample_composition(rng, HELD_OUT)
        drawn.append(Prompted(caption(rng, composition.scene, composition.instances, full=True), composition))
    return drawn


def prompt_following(judge: AttributeJudge, pictures: Pictures, asked: Sequence[Prompted]) -> dict[str, Score]:
    """Score pictures (N, 64, 64, 3), one per prompt, on every question that some of them can answer."""
    compositions = [prompted.composition for prompted in asked]
    generated, rendered = judge.read(pictures), judge.read(draw_compositions(compositions))
    half = len(asked) // 2
    shuffled = generated[half:] + generated[:half]
    scores = {}
    for name, question in _QUESTIONS.items():
        kept = [k for k, composition in enumerate(compositions) if question.asked(composition)]
        if kept:
            right = [_share_right(question, said, compositions, kept) for said in (generated, shuffled, rendered)]
            scores[name] = Score(generated=right[0], shuffled=right[1], rendered=right[2], count=len(kept))
    return scores


def _share_right(
    question: _Question,
    said: Sequence[Mapping[str, str]],
    compositions: Sequence[Composition],
    kept: Sequence[int],
) -> float:
    return float(np.mean([question.right(said[k], compositions[k]) for k in kept]))


def attribute_accuracy(judge: AttributeJudge, compositions: Sequence[Composition]) -> dict[str, Accuracy]:
    """Return how often the judge reads each attribute rightly off renders that can show it."""
    said, wanted = judge.read(draw_compositions(compositions)), [labels(c) for c in compositions]
    accuracies = {}
    for name in ATTRIBUTES:
        right = [said[k][name] == label[name] for k, label in enumerate(wanted) if name in label]
        if right:
            accuracies[name] = Accuracy(float(np.mean(right)), len(right))
    return accuracies


def identity_accuracy(judge: IdentityJudge, *, groups: int, candidates: int = 10, renders: int = 5) -> Accuracy:
    """Return how often the judge picks a held-out identity among lookalikes of one class, colour and pattern."""
    right = 0
    for group in range(groups):
        first = _FIRST_GROUP + group * 1000
        faces = lookalikes("held-out", first, candidates)
        known = [sightings("held-out", first + 100 + k, face, renders) for k, face in enumerate(faces)]
        queries = np.concatenate([sightings("held-out", first + 200 + k, face, 1) for k, face in enumerate(faces)])
        right += sum(pick == k for k, pick in enumerate(judge.pick(queries, [list(some) for some in known])))
    return Accuracy(right / (groups * candidates), groups * candidates)


def seconds_per_picture(base: BaseModel, how: Drawing, *, pictures: int) -> float:
    """Return the median processor time of one guided picture after a warm-up: what it takes on an idle core."""
    draw(base, ["a red cat"], replace(how, steps=2))
    times = []
    for _ in range(pictures):
        started = time.process_time()
        draw(base, ["a red cat"], how)
        times.append(time.process_time() - started)
    return median(times)
