"""Individuals that share pictures: who stands where, which part of a picture shows whom, and how renders look there."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from random import Random

import numpy as np
from PIL import Image

from tests.benchmarks.subjects import Subject, subjects
from workers.engine.storybook.identity import Identity
from workers.engine.storybook.judge_pictures import draw_compositions
from workers.engine.storybook.judges import Pictures
from workers.engine.storybook.sampling import arrange, sample_instance, sample_scene
from workers.engine.storybook.world import SIZE, Composition

Family = Mapping[str, Subject]
"""One individual for each role."""

PLACES = {"on the beach": "beach", "in the forest": "forest", "in the snow": "snow"}
ROLES = ("cat", "dog", "chair", "sunglasses")
WORN = "sunglasses"

_KNOWN = 12  # renders that the judge knows each candidate by
_LEFT, _RIGHT, _WHOLE = (0, 22, 42, 64), (22, 22, 64, 64), (0, 0, SIZE, SIZE)
_EYES, _EYES_OF_THE_LEFT = (16, 10, 48, 42), (4, 26, 28, 50)


@dataclass(frozen=True)
class Arrangement:
    """Who is in a picture, how a prompt says so, and the part of the picture (left, top, right, bottom) for each."""

    wording: str
    spots: Mapping[str, tuple[int, int, int, int]]

    @property
    def roles(self) -> tuple[str, ...]:
        """Who is in it, in the prompt's order."""
        return tuple(self.spots)


ARRANGEMENTS = {
    "cat and chair": Arrangement("{cat} and {chair}", {"cat": _LEFT, "chair": _RIGHT}),
    "cat and dog": Arrangement("{cat} and {dog}", {"cat": _LEFT, "dog": _RIGHT}),
    "cat in sunglasses": Arrangement("{cat} wearing {sunglasses}", {"cat": _WHOLE, "sunglasses": _EYES}),
    "all three": Arrangement(
        "{cat} wearing {sunglasses} and {chair}", {"cat": _LEFT, "sunglasses": _EYES_OF_THE_LEFT, "chair": _RIGHT}
    ),
}


def families(number: int) -> list[Family]:
    """Return families whose members differ in colour, so that words can tell them apart."""
    found: list[Family] = []
    for members in zip(*(subjects(4 * number, (role,)) for role in ROLES), strict=True):
        colours = {member.identity.colour for member in members}
        if len(colours) == len(ROLES) and len(found) < number:
            found.append(dict(zip(ROLES, members, strict=True)))
    if len(found) < number:
        raise ValueError(f"only {len(found)} families of four colours were found")
    return found


def looked_at(pictures: Pictures, spot: tuple[int, int, int, int]) -> Pictures:
    """Cut a part out of each picture and enlarge it to a whole one."""
    parts = [Image.fromarray(picture).crop(spot) for picture in pictures]
    return np.stack([np.asarray(part.resize((SIZE, SIZE), Image.Resampling.BICUBIC)) for part in parts])


def lineup(family: Family, arrangement: Arrangement, role: str) -> list[Pictures]:
    """Render each candidate for a role in the arrangement's place, beside the others as they are."""
    rng = Random(family[role].number)
    spot, known = arrangement.spots[role], {name: member.identity for name, member in family.items()}
    faces = [known | {role: face} for face in family[role].faces]
    return [looked_at(render(rng, identities, arrangement, _KNOWN), spot) for identities in faces]


def render(rng: Random, identities: Mapping[str, Identity], arrangement: Arrangement, number: int) -> Pictures:
    """Render an arrangement in every place in turn: what a perfect model would draw."""
    places = list(PLACES.values())
    return draw_compositions([_compose(rng, identities, arrangement, places[k % len(places)]) for k in range(number)])


def _compose(rng: Random, identities: Mapping[str, Identity], arrangement: Arrangement, place: str) -> Composition:
    standing = [identities[role] for role in arrangement.roles if role != WORN]
    instances = [sample_instance(rng, identity) for identity in standing]
    if WORN in arrangement.roles:
        instances[0] = replace(instances[0], worn=identities[WORN])
    scene = sample_scene(rng, place, avoid=[identity.colour for identity in standing])
    return Composition(scene, tuple(instances), arrange(rng, instances))
