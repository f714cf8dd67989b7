"""What a picture of the storybook world is made of, before anything is drawn."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from workers.engine.storybook.identity import Identity

SIZE: Final = 64
"""Side of a picture in pixels; placements are given in these units."""

SCENES: Final = ("plain", "beach", "forest", "snow", "city", "room", "space")
NIGHT_SCENES: Final = ("beach", "forest", "snow", "city")
"""Where day and night differ."""

STYLES: Final = ("cartoon", "sketch", "watercolor")
FRONT, SIDE = 0, 1


@dataclass(frozen=True)
class Scene:
    """Where and how: the place, the style and the free parameters of this particular backdrop.

    `horizon` and `sun` are in picture units; `variant` in [0, 1] and `round_trees` pick props; `seed` draws the rest.
    """

    place: str
    style: str
    night: bool
    background: str
    horizon: float
    sun: float
    variant: float
    round_trees: bool
    seed: int


@dataclass(frozen=True)
class Instance:
    """One appearance of an identity: how it stands and which accessory it wears."""

    identity: Identity
    worn: Identity | None
    pose: int
    flip: bool
    tilt: float


@dataclass(frozen=True)
class Placement:
    """Where an instance stands: centre x, ground y and half its height, in picture units."""

    x: float
    ground: float
    half: float


@dataclass(frozen=True)
class Composition:
    """A whole picture: one scene, its instances from left to right, and their placements."""

    scene: Scene
    instances: tuple[Instance, ...]
    layout: tuple[Placement, ...]
