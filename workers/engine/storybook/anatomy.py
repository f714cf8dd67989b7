"""What every drawing of a thing shares: its anchors for accessories, its tools, and its eyes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from workers.engine.storybook.canvas import Coat, Pen
from workers.engine.storybook.identity import Identity
from workers.engine.storybook.palette import INK, WHITE, Rgb, mix

CREAM: Final[Rgb] = (255, 252, 244)
PUPIL: Final[Rgb] = (20, 18, 24)
NOSE: Final[Rgb] = (232, 112, 136)


@dataclass(frozen=True)
class Anchor:
    """A spot that carries an accessory: its centre and half its width, in the thing's own [-1, 1] box."""

    x: float
    y: float
    half: float


@dataclass(frozen=True)
class Anchors:
    """Where sunglasses, a hat and a scarf sit on a thing."""

    eyes: Anchor
    top: Anchor
    neck: Anchor


def coat_of(identity: Identity) -> Coat:
    """Return the identity's pattern as the pen wants it."""
    return Coat(identity.pattern, identity.second, identity.phase)


def darker(colour: Rgb) -> Rgb:
    """Return the colour of a thing's far or lower parts."""
    return mix(colour, INK, 0.35)


def draw_eye(pen: Pen, x: float, y: float, radius: float, iris: Rgb) -> None:
    """Draw one round eye with a highlight."""
    pen.dot(x, y, radius * 1.25, CREAM)
    pen.dot(x, y, radius, iris)
    pen.dot(x, y, radius * 0.6, PUPIL)
    pen.dot(x - radius * 0.3, y - radius * 0.4, radius * 0.3, WHITE)
