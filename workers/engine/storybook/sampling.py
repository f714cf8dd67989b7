"""Draws compositions: the training mixture, single portraits, and the labels a judge is trained on."""

from __future__ import annotations

from collections.abc import Container
from dataclasses import dataclass
from random import Random

from workers.engine.storybook.identity import CLASSES, COLOUR_NAMES, PATTERNS, Identity, sample_identity
from workers.engine.storybook.world import (
    ACCESSORIES,
    ACCESSORY_COLOURS,
    FRONT,
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
    """How often each feature appears in a set of pictures."""

    plain: float
    accessory: float
    pair: float
    night: float
    sketch: float


STUDIO = Mixture(plain=1.0, accessory=0.15, pair=0.0, night=0.0, sketch=0.0)
"""One large thing before a plain backdrop: what the curriculum starts with."""

OUTDOORS = Mixture(plain=0.2, accessory=0.45, pair=0.15, night=0.25, sketch=0.08)
"""Everything the world can show."""


def sample_composition(rng: Random, mixture: Mixture = OUTDOORS, *, identity: Identity | None = None) -> Composition:
    """Draw a picture's contents; `identity` fixes its first, and then only, thing."""
    style = "sketch" if rng.random() < mixture.sketch else "cartoon"
    place = "plain" if rng.random() < mixture.plain else rng.choice(SCENES[1:])
    night = style == "cartoon" and place != "plain" and rng.random() < mixture.night
    pair = identity is None and rng.random() < mixture.pair
    first = identity or sample_identity(rng)
    if pair:
        return _pair(rng, first, place, style, night)
    scene = sample_scene(rng, place, style=style, night=night, avoid=(first.colour,))
    instance = sample_instance(rng, first, accessory_share=mixture.accessory)
    return Composition(scene, (instance,), (_centred(rng, instance),))


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


def sample_instance(rng: Random, identity: Identity, *, accessory_share: float = 0.0) -> Instance:
    """Draw how an identity appears."""
    side_share = 0.5 if identity.cls == "robot" else 0.12
    return Instance(
        identity=identity,
        accessory=rng.choice(ACCESSORIES[1:]) if rng.random() < accessory_share else "none",
        accessory_colour=rng.choice([name for name in ACCESSORY_COLOURS if name != identity.colour]),
        pose=SIDE if rng.random() < side_share else FRONT,
        flip=rng.random() < 0.25,
        tilt=rng.uniform(-0.05, 0.05),
    )


def _centred(rng: Random, instance: Instance) -> Placement:
    """Place one large thing near the middle, a little smaller under a hat so that the hat stays in the picture."""
    half = rng.uniform(18, 21.5) if instance.accessory == "hat" else rng.uniform(19, 23.5)
    return Placement(32 + rng.uniform(-4, 4), rng.uniform(57.5, 61), half)


def _pair(rng: Random, first: Identity, place: str, style: str, night: bool) -> Composition:
    second = sample_identity(rng)
    while second.cls == first.cls or second.colour == first.colour:
        second = sample_identity(rng)
    scene = sample_scene(rng, place, style=style, night=night, avoid=(first.colour, second.colour))
    ground = rng.uniform(57, 60)
    layout = tuple(
        Placement(x + rng.uniform(-1, 1), ground + rng.uniform(-1, 1), rng.uniform(14.5, 15.5)) for x in (16.5, 47.5)
    )
    return Composition(scene, (sample_instance(rng, first), sample_instance(rng, second)), layout)


ATTRIBUTES = {
    "class": CLASSES,
    "colour": COLOUR_NAMES,
    "pattern": PATTERNS,
    "accessory": ACCESSORIES,
    "scene": SCENES,
    "night": ("day", "night"),
    "style": STYLES,
    "count": ("one", "two"),
}
"""What a picture's labels say, and the values each may take; things are judged by the first (left) one."""


def labels(composition: Composition) -> dict[str, str]:
    """Return the value of each attribute of `ATTRIBUTES`."""
    scene, first = composition.scene, composition.instances[0]
    return {
        "class": first.identity.cls,
        "colour": first.identity.colour,
        "pattern": first.identity.pattern,
        "accessory": first.accessory,
        "scene": scene.place,
        "night": "night" if scene.night else "day",
        "style": scene.style,
        "count": "one" if len(composition.instances) == 1 else "two",
    }
