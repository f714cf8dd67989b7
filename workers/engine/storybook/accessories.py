"""Sunglasses, hats and scarves: worn on a thing's anchors, or standing alone.

Each is drawn around one anchor, so that both ways show the same individual; alone it is drawn larger, as a thing.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import skia

from workers.engine.storybook.anatomy import Anchor, Anchors, coat_of
from workers.engine.storybook.canvas import Path, Pen, box, curve, ellipse, polygon
from workers.engine.storybook.identity import Identity
from workers.engine.storybook.palette import Rgb, mix

_GLASS: Final[Rgb] = (22, 20, 28)
_GLINT: Final[Rgb] = (196, 212, 228)
_BOTH: Final = (-1, 1)


def draw_worn(pen: Pen, anchors: Anchors, accessory: Identity) -> None:
    """Draw an accessory over a thing that has just been drawn."""
    anchor = {"sunglasses": anchors.eyes, "hat": anchors.top, "scarf": anchors.neck}[accessory.cls]
    _DRAW[accessory.cls](pen, accessory, anchor)


def draw_alone(pen: Pen, accessory: Identity) -> None:
    """Draw an accessory as a thing of its own, in a local box [-1, 1] x [-1, 1] whose ground is y = 1."""
    anchor, scale = _ALONE[accessory.cls]
    pen.canvas.save()
    pen.canvas.scale(scale, scale)
    pen.line_width /= scale
    if accessory.cls == "sunglasses":
        _arms(pen, accessory, anchor)
    _DRAW[accessory.cls](pen, accessory, anchor)
    pen.line_width *= scale
    pen.canvas.restore()


def _sunglasses(pen: Pen, identity: Identity, at: Anchor) -> None:
    form, width, height, bridge, glint, *_ = identity.shape
    half, tall = at.half * (0.92 + 0.2 * width), 0.15 + 0.07 * height
    y = at.y + 0.02
    lens = mix(identity.second, _GLASS, 0.72)
    brow = y - 0.3 * tall - 0.3 * tall * bridge
    pen.stroke(curve((at.x - half, brow), (at.x + half, brow)), identity.shade, 0.05)
    for side in _BOTH:
        x = at.x + side * at.half * 1.12
        pen.fill(_lens(form, x, y, side, (half, tall)), identity.shade)
        pen.fill(_lens(form, x, y, side, (half - 0.07, tall - 0.065)), lens, outline=False)
        shine = curve((x - half * 0.4, y + 0.04), (x - half * 0.1 + 0.1 * glint, y - 0.06))
        pen.line(shine, _GLINT, 0.04)


def _lens(form: float, x: float, y: float, side: int, size: tuple[float, float]) -> Path:
    """Return a round, square, cat-eye or aviator lens."""
    half, tall = size
    if form < 0.3:
        return ellipse(x, y, half, tall * 1.15)
    if form < 0.55:
        return box(x - half, y - tall, x + half, y + tall, 0.04)
    if form < 0.78:
        inner, outer = x - side * half, x + side * half
        return polygon((inner, y - 0.5 * tall), (outer, y - 1.5 * tall), (outer, y + 0.3 * tall), (x, y + 1.1 * tall))
    return box(x - half, y - 0.8 * tall, x + half, y + 1.3 * tall, half * 0.8)


def _arms(pen: Pen, identity: Identity, at: Anchor) -> None:
    for side in _BOTH:
        hinge = (at.x + side * at.half * 1.6, at.y - 0.05)
        bend, tip = (at.x + side * at.half * 2.2, at.y - 0.2), (at.x + side * at.half * 2.35, at.y - 0.02)
        pen.stroke(curve(hinge, bend, tip), identity.shade, 0.06)


def _hat(pen: Pen, identity: Identity, at: Anchor) -> None:
    form, height, brim, taper, _, bobble, *_ = identity.shape
    if form < 0.3:
        _top_hat(pen, identity, at, (0.36 + 0.22 * height, 0.05 + 0.14 * brim, 0.12 * (taper - 0.5)))
    elif form < 0.52:
        _cap(pen, identity, at, 0.3 + 0.12 * height)
    elif form < 0.76:
        _beanie(pen, identity, at, (0.36 + 0.16 * height, 0.06 + 0.07 * bobble))
    else:
        _cone(pen, identity, at, (0.52 + 0.22 * height, 0.04 + 0.16 * brim, 0.3 * (taper - 0.5)))


def _top_hat(pen: Pen, identity: Identity, at: Anchor, size: tuple[float, float, float]) -> None:
    height, brim, taper = size
    foot, head = at.half * 0.74, at.half * (0.74 + taper)
    y = at.y
    pen.fill(
        polygon((at.x - foot, y), (at.x - head, y - height), (at.x + head, y - height), (at.x + foot, y)),
        identity.shade,
        coat=coat_of(identity),
    )
    pen.fill(box(at.x - foot, y - 0.15, at.x + foot, y - 0.01), identity.second, outline=False)
    pen.fill(box(at.x - foot - brim, y - 0.05, at.x + foot + brim, y + 0.1, 0.06), identity.shade)


def _cap(pen: Pen, identity: Identity, at: Anchor, height: float) -> None:
    half, x = at.half * 0.9, at.x + 0.06
    dome = skia.Path()
    dome.moveTo(x - half, at.y + 0.06)
    dome.cubicTo(x - half, at.y - height * 1.3, x + half, at.y - height * 1.3, x + half, at.y + 0.06)
    dome.close()
    pen.fill(dome, identity.shade, coat=coat_of(identity))
    pen.fill(box(x - half - 0.26, at.y - 0.04, x + 0.1, at.y + 0.09, 0.06), identity.second)
    pen.fill(ellipse(x, at.y - height * 0.97, 0.06, 0.05), identity.second)


def _beanie(pen: Pen, identity: Identity, at: Anchor, size: tuple[float, float]) -> None:
    height, bobble = size
    half = at.half * 0.9
    dome = skia.Path()
    dome.moveTo(at.x - half, at.y)
    dome.cubicTo(at.x - half * 0.9, at.y - height * 1.3, at.x + half * 0.9, at.y - height * 1.3, at.x + half, at.y)
    dome.close()
    pen.fill(ellipse(at.x, at.y - height - bobble * 0.4, bobble, bobble), identity.second)
    pen.fill(dome, identity.shade, coat=coat_of(identity))
    pen.fill(box(at.x - half - 0.05, at.y - 0.1, at.x + half + 0.05, at.y + 0.09, 0.07), identity.second)


def _cone(pen: Pen, identity: Identity, at: Anchor, size: tuple[float, float, float]) -> None:
    height, brim, lean = size
    half = at.half * 0.74
    tip = (at.x + lean, at.y - height)
    pen.fill(polygon((at.x - half, at.y), tip, (at.x + half, at.y)), identity.shade, coat=coat_of(identity))
    pen.fill(ellipse(*tip, 0.08, 0.08), identity.second)
    pen.fill(box(at.x - half - brim, at.y - 0.04, at.x + half + brim, at.y + 0.1, 0.06), identity.shade)


def _scarf(pen: Pen, identity: Identity, at: Anchor) -> None:
    width, length, knot, fringe, ends, slant, *_ = identity.shape
    half, thick, coat = at.half + 0.07, 0.12 + 0.06 * width, coat_of(identity)
    x, drop = at.x + half * (0.75 * knot - 0.3), 0.3 + 0.28 * length
    tails = ((0.0, drop), (-0.3, drop * 0.8)) if ends > 0.5 else ((0.0, drop),)
    for shift, reach in tails:
        left, foot = x + shift, min(at.y + reach, 0.92)
        lean = 0.16 * (slant - 0.5)
        corners = ((left, at.y), (left + 0.24, at.y), (left + 0.25 + lean, foot), (left - 0.01 + lean, foot))
        if fringe > 0.4:
            pen.fill(box(left + lean, foot - 0.04, left + 0.24 + lean, foot + 0.09), identity.second)
        pen.fill(polygon(*corners), identity.shade, coat=coat)
    pen.fill(box(at.x - half, at.y - thick, at.x + half, at.y + thick, 0.1), identity.shade, coat=coat)
    pen.fill(ellipse(x + 0.12, at.y + 0.02, 0.15, thick * 0.9), identity.shade)


_DRAW: Final[dict[str, Callable[[Pen, Identity, Anchor], None]]] = {
    "sunglasses": _sunglasses,
    "hat": _hat,
    "scarf": _scarf,
}
_ALONE: Final = {
    "sunglasses": (Anchor(0, 0.2, 0.2), 2.0),
    "hat": (Anchor(0, 0.42, 0.44), 1.95),
    "scarf": (Anchor(0, -0.14, 0.43), 1.9),
}
"""Where an accessory that stands alone sits in its enlarged box, and how much larger it is."""
