"""Draws compositions: the training mixture, single portraits, and the labels a judge is trained on."""

from __future__ import annotations

from collections.abc import Container, Sequence
from dataclasses import dataclass
from random import Random
from typing import Final

from workers.engine.storybook.identity import (
    ACCESSORIES,
    CLASSES,
    COLOUR_NAMES,
    KINDS,
    PATTERNS,
    Identity,
    is_unseen,
    sample_identity,
)
from workers.engine.storybook.world import (
    FRONT,
    NIGHT_SCENES,
    SCENES,
    SIDE,
    STYLES,
    Composition,
    Instance,
    Placement,
    Scene,
)


@dataclass(frozen=True)
class Mixture:
    """How often each feature appears in a set of pictures.

    `alone` is the share of accessories among the things that stand by themselves, `accessory` the share of creatures
    and things that wear one. `unseen` lets in the classes and colours that training keeps apart.
    """

    plain: float
    accessory: float
    alone: float = 0.0
    pair: float = 0.0
    trio: float = 0.0
    night: float = 0.0
    sketch: float = 0.0
    watercolor: float = 0.0
    unseen: bool = False


STUDIO: Final = Mixture(plain=1.0, accessory=0.15, alone=0.2)
"""One large thing before a plain backdrop: what the curriculum starts with."""

OUTDOORS: Final = Mixture(
    plain=0.2, accessory=0.45, alone=0.15, pair=0.32, trio=0.04, night=0.25, sketch=0.08, watercolor=0.08
)
"""Everything the world can show."""

_PLAIN_WORN: Final = 0.75
_CENTRES: Final = {2: (16.5, 47.5), 3: (11.0, 32.0, 53.0)}
_HALVES: Final = {2: (14.5, 15.5), 3: (10.2, 11.0)}


def sample_composition(rng: Random, mixture: Mixture = OUTDOORS, *, identity: Identity | None = None) -> Composition:
    """Draw a picture's contents; `identity` fixes its first, and then only, thing."""
    style = rng.choices(STYLES, (1 - mixture.sketch - mixture.watercolor, mixture.sketch, mixture.watercolor))[0]
    place = "plain" if rng.random() < mixture.plain else rng.choice(SCENES[1:])
    night = style == "cartoon" and place in NIGHT_SCENES and rng.random() < mixture.night
    roll = 1.0 if identity else rng.random()
    count = 3 if roll < mixture.trio else 2 if roll < mixture.trio + mixture.pair else 1
    things = [identity] if identity else _things(rng, mixture, count)
    scene = sample_scene(rng, place, style=style, night=night, avoid=[thing.colour for thing in things])
    wearing = mixture.accessory if count < 3 else 0.0
    instances = tuple(sample_instance(rng, thing, wearing=wearing, unseen=mixture.unseen) for thing in things)
    return Composition(scene, instances, arrange(rng, instances))


def sample_scene(
    rng: Random, place: str, *, style: str = "cartoon", night: bool = False, avoid: Container[str] = ()
) -> Scene:
    """Draw a backdrop; its plain colour is none of those to avoid, so that things stand out."""
    return Scene(
        place=place,
        style=style,
        night=night,
        background=rng.choice([name for name in COLOUR_NAMES if name not in avoid]),
        horizon=rng.uniform(38, 44),
        sun=rng.uniform(8, 56),
        variant=rng.random(),
        round_trees=rng.random() < 0.5,
        seed=rng.randrange(1 << 30),
    )


def sample_instance(rng: Random, identity: Identity, *, wearing: float = 0.0, unseen: bool = False) -> Instance:
    """Draw how an identity appears, wearing an accessory at the given rate; accessories wear nothing."""
    side_share = 0.5 if identity.cls == "robot" else 0.12
    wears = identity.cls in CLASSES and rng.random() < wearing
    return Instance(
        identity=identity,
        worn=_worn(rng, identity, unseen) if wears else None,
        pose=SIDE if rng.random() < side_share else FRONT,
        flip=rng.random() < 0.25,
        tilt=rng.uniform(-0.05, 0.05),
    )


def arrange(rng: Random, instances: Sequence[Instance]) -> tuple[Placement, ...]:
    """Draw where things stand: one near the middle, two or three side by side."""
    return (_centred(rng, instances[0]),) if len(instances) == 1 else _in_a_row(rng, len(instances))


def _worn(rng: Random, wearer: Identity, unseen: bool) -> Identity:
    kind = rng.choice(ACCESSORIES)
    pattern = "plain" if rng.random() < _PLAIN_WORN else rng.choice(PATTERNS[1:])
    colours = _colours(kind, unseen, avoid=(wearer.colour,))
    return sample_identity(rng, cls=kind, colour=rng.choice(colours), pattern=pattern)


def _things(rng: Random, mixture: Mixture, count: int) -> list[Identity]:
    """Draw things that differ in class and colour, so that words can tell them apart."""
    things: list[Identity] = []
    for _ in range(count):
        kinds = ACCESSORIES if rng.random() < mixture.alone else CLASSES
        cls = rng.choice([kind for kind in kinds if all(kind != thing.cls for thing in things)])
        colour = rng.choice(_colours(cls, mixture.unseen, avoid=[thing.colour for thing in things]))
        things.append(sample_identity(rng, cls=cls, colour=colour))
    return things


def _colours(cls: str, unseen: bool, *, avoid: Container[str]) -> list[str]:
    return [name for name in COLOUR_NAMES if name not in avoid and (unseen or not is_unseen(cls, name))]


def _centred(rng: Random, instance: Instance) -> Placement:
    """Place one large thing near the middle, a little smaller under a hat so that the hat stays in the picture."""
    hat = instance.worn is not None and instance.worn.cls == "hat"
    half = rng.uniform(18, 21.5) if hat else rng.uniform(19, 23.5)
    return Placement(32 + rng.uniform(-4, 4), rng.uniform(57.5, 61), half)


def _in_a_row(rng: Random, count: int) -> tuple[Placement, ...]:
    ground = rng.uniform(57, 60)
    return tuple(
        Placement(x + rng.uniform(-1, 1), ground + rng.uniform(-1, 1), rng.uniform(*_HALVES[count]))
        for x in _CENTRES[count]
    )


ATTRIBUTES: Final = {
    "class": KINDS,
    "colour": COLOUR_NAMES,
    "pattern": PATTERNS,
    "accessory": ("none", *ACCESSORIES),
    "scene": SCENES,
    "night": ("day", "night"),
    "style": STYLES,
    "count": ("one", "two", "three"),
    "right class": KINDS,
}
"""What a picture's labels say, and the values each may take; `right class` is that of a pair's second thing."""


def labels(composition: Composition) -> dict[str, str]:
    """Return the attributes that this picture can show; things are judged by the first (left) one.

    A sketch shows neither colour nor pattern, patterns need a thing that has the picture to itself, and of three
    things, each a third as wide, only the count is asked.
    """
    scene, count = composition.scene, len(composition.instances)
    first = composition.instances[0]
    said = {
        "scene": scene.place,
        "night": "night" if scene.night else "day",
        "style": scene.style,
        "count": ATTRIBUTES["count"][count - 1],
    }
    if count <= 2:
        said["class"] = first.identity.cls
        said["accessory"] = first.worn.cls if first.worn else "none"
        if scene.style != "sketch":
            said["colour"] = first.identity.colour
    if count == 1 and scene.style != "sketch" and first.identity.cls != "sunglasses":
        said["pattern"] = first.identity.pattern
    if count == 2:
        said["right class"] = composition.instances[1].identity.cls
    return said
