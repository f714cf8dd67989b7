"""Sunglasses, hats and scarves, hung on a thing's anchors."""

from __future__ import annotations

from typing import Final

from workers.engine.storybook.anatomy import Anchors
from workers.engine.storybook.canvas import Pen, box, curve
from workers.engine.storybook.palette import COLOURS, Rgb, luminance, mix

_LENS: Final[Rgb] = (24, 22, 30)
_FRAME: Final[Rgb] = (16, 14, 20)
_GLINT: Final[Rgb] = (170, 190, 210)


def draw_accessory(pen: Pen, anchors: Anchors, kind: str, colour: str) -> None:
    """Draw one accessory over a thing that has just been drawn."""
    if kind == "scarf":
        _scarf(pen, anchors, COLOURS[colour])
    elif kind == "hat":
        _hat(pen, anchors, COLOURS[colour])
    elif kind == "sunglasses":
        _sunglasses(pen, anchors)


def _scarf(pen: Pen, anchors: Anchors, colour: Rgb) -> None:
    x, y, half = anchors.neck.x, anchors.neck.y, anchors.neck.half
    pen.fill(box(x + half * 0.2, y, x + half * 0.2 + 0.25, y + 0.5, 0.05), colour)
    pen.fill(box(x - half - 0.06, y - 0.13, x + half + 0.06, y + 0.14, 0.1), colour)


def _hat(pen: Pen, anchors: Anchors, colour: Rgb) -> None:
    x, y, half = anchors.top.x, anchors.top.y, anchors.top.half
    band = mix(colour, (255, 255, 255) if luminance(colour) < 120 else (20, 20, 30), 0.7)
    pen.fill(box(x - half * 0.68, y - 0.5, x + half * 0.68, y, 0.04), colour)
    pen.fill(box(x - half * 0.68, y - 0.16, x + half * 0.68, y - 0.01), band, outline=False)
    pen.fill(box(x - half - 0.1, y - 0.06, x + half + 0.1, y + 0.1, 0.06), colour)


def _sunglasses(pen: Pen, anchors: Anchors) -> None:
    x, y, half = anchors.eyes.x, anchors.eyes.y, anchors.eyes.half
    pen.line(curve((x - half * 1.9, y - 0.06), (x + half * 1.9, y - 0.06)), _FRAME, 0.07)
    for side in (-1, 1):
        middle = x + side * half
        pen.fill(box(middle - half * 0.9, y - 0.14, middle + half * 0.9, y + 0.18, 0.08), _LENS, outline=False)
        glint = curve((middle - half * 0.35, y + 0.05), (middle + half * 0.1, y - 0.06))
        pen.line(glint, _GLINT, 0.04)
