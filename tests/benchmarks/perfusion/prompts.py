"""What is asked for with an individual in it, and what a judge should then read off the picture.

The text says nothing of the individual but its kind, so that image and text scores have nothing in common: whether the
picture shows the individual is the identity judge's to say, whether it shows the rest, the attribute judge's.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from workers.engine.storybook.captions import with_article
from workers.engine.storybook.identity import ACCESSORIES

_SCENES: Final = {
    "on the beach": "beach",
    "in the forest": "forest",
    "in the snow": "snow",
    "in the city": "city",
    "in a room": "room",
    "in space": "space",
    "on a white background": "plain",
}
_COMPANIONS: Final = (("green", "chair"), ("blue", "car"), ("red", "dog"), ("purple", "boat"), ("orange", "house"))
_WEARERS: Final = (("red", "dog"), ("green", "cat"), ("orange", "robot"), ("purple", "rabbit"))
_WORN: Final = (("red", "hat"), ("blue", "sunglasses"), ("yellow", "scarf"), ("green", "hat"))
_PAIRS: Final = 4


@dataclass(frozen=True)
class Wording:
    """A prompt with {} for the individual; ``due`` are the attributes to read, ``alone`` says whether it is by itself.

    A pair's classes stand in no order.
    """

    text: str
    due: Mapping[str, str]
    alone: bool = True
    pair: tuple[str, str] | None = None

    def share_right(self, said: Mapping[str, str]) -> float:
        """Return the share of what is due that was read."""
        right = [said[name] == value for name, value in self.due.items()]
        if self.pair is not None:
            right.append(sorted((said["class"], said["right class"])) == sorted(self.pair))
        return sum(right) / len(right)


def wordings(kind: str) -> list[Wording]:
    """Return the twenty wordings for an individual of this kind: places, styles, accessories, companions."""
    places = [Wording(f"{{}} {words}", {"scene": scene}) for words, scene in _SCENES.items()]
    nights = [
        Wording(f"{{}} {words} at night", {"scene": _SCENES[words], "night": "night"})
        for words in ("in the snow", "in the city")
    ]
    styles = [
        Wording("a watercolor of {}", {"style": "watercolor"}),
        Wording("a watercolor of {} on the beach", {"style": "watercolor", "scene": "beach"}),
        Wording("a pencil sketch of {}", {"style": "sketch"}, alone=False),  # it has no colours to be known by
    ]
    return [*places, *nights, *styles, *_worn(kind), *_paired(kind)]


def _worn(kind: str) -> Iterator[Wording]:
    scenes = list(_SCENES.items())
    if kind in ACCESSORIES:
        for (colour, wearer), (words, scene) in zip(_WEARERS, scenes, strict=False):
            due = {"class": wearer, "accessory": kind, "scene": scene}
            yield Wording(f"a {colour} {wearer} wearing {{}} {words}", due, alone=False)
    else:
        for (colour, worn), (words, scene) in zip(_WORN, scenes, strict=False):
            worn_thing = with_article(f"{colour} {worn}")
            yield Wording(f"{{}} wearing {worn_thing} {words}", {"accessory": worn, "scene": scene})


def _paired(kind: str) -> Iterator[Wording]:
    others = [(colour, other) for colour, other in _COMPANIONS if other != kind][:_PAIRS]
    for (colour, other), (words, scene) in zip(others, list(_SCENES.items())[1:], strict=False):
        due = {"scene": scene, "count": "two"}
        company = with_article(f"{colour} {other}")
        yield Wording(f"{{}} next to {company} {words}", due, alone=False, pair=(kind, other))


def alone(asked: Sequence[Wording]) -> list[int]:
    """Return the places of those wordings whose pictures show the individual by itself and in colour."""
    return [k for k, wording in enumerate(asked) if wording.alone]


def called(word: str, kind: str) -> str:
    """Return a method's word for an individual with the article of its kind: "a <it>", but "<it>" for sunglasses."""
    return word if with_article(kind) == kind else f"a {word}"
