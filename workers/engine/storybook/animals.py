"""Cats, dogs, rabbits, birds and fish, in a local box [-1, 1] x [-1, 1] whose ground is y = 1.

The second colour shows in ears, belly, paws, wings, fins and tails; the shape parameters set the proportions.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from workers.engine.storybook.anatomy import CREAM, NOSE, PUPIL, Anchor, Anchors, coat_of, darker, draw_eye
from workers.engine.storybook.canvas import Pen, box, curve, ellipse, polygon
from workers.engine.storybook.identity import Identity
from workers.engine.storybook.palette import WHITE, Rgb, luminance, mix
from workers.engine.storybook.world import FRONT

_BEAK: Final[Rgb] = (246, 168, 40)
_LEGS: Final[Rgb] = (226, 140, 40)
_MOUTH: Final[Rgb] = (60, 30, 40)
_BOTH: Final = (-1, 1)


def draw_quadruped(pen: Pen, identity: Identity, pose: int) -> Anchors:
    """Draw a cat, dog or rabbit, sitting towards us or standing sideways."""
    if pose == FRONT:
        _sitting_body(pen, identity)
        return _HEADS[identity.cls](pen, identity, 0.0, -0.18, 1.05)
    _standing_body(pen, identity)
    return _HEADS[identity.cls](pen, identity, -0.42, -0.08, 0.9)


def _sitting_body(pen: Pen, identity: Identity) -> None:
    _, _, _, build, belly, paws, reach, lift = identity.shape
    if identity.cls == "cat":
        path = curve((0.35, 0.9), (1.05, 0.95), (0.6 + 0.3 * reach, 0.5), (0.85, 0.1 + 0.4 * lift))
        pen.stroke(path, identity.second if lift > 0.4 else identity.shade, 0.13)
    elif identity.cls == "dog":
        path = curve((0.35, 0.85), (0.7, 0.8), (0.8, 0.3 + 0.35 * lift))
        pen.stroke(path, identity.second if lift > 0.4 else identity.shade, 0.14)
    else:
        pen.fill(ellipse(0.5, 0.8, 0.14 + 0.08 * reach, 0.17), identity.second)
    pen.fill(ellipse(0, 0.56, 0.4 + 0.14 * build, 0.46), identity.shade, coat=coat_of(identity))
    if belly > 0.35 and identity.pattern == "plain":
        pen.fill(ellipse(0, 0.62, 0.17 + 0.13 * belly, 0.3), identity.second, outline=False)
    for side in _BOTH:
        pen.fill(ellipse(side * 0.22, 0.93, 0.17, 0.1), identity.second if paws > 0.4 else identity.shade)


def _standing_body(pen: Pen, identity: Identity) -> None:
    _, _, _, build, belly, paws, reach, lift = identity.shape
    tail = identity.second if lift > 0.4 else identity.shade
    if identity.cls == "cat":
        pen.stroke(curve((0.6, 0.35), (1.0, 0.3), (0.75, -0.1), (0.9, -0.2 - 0.3 * lift)), tail, 0.13)
    elif identity.cls == "dog":
        pen.stroke(curve((0.6, 0.3), (0.85, 0.2), (0.95, 0.1 - 0.35 * lift)), tail, 0.14)
    else:
        pen.fill(ellipse(0.74, 0.4, 0.12 + 0.08 * reach, 0.16), identity.second)
    for x in (-0.38, 0.42):
        pen.fill(box(x - 0.08, 0.5, x + 0.12, 0.98, 0.08), darker(identity.shade))
    for x in (-0.22, 0.58):
        pen.fill(box(x - 0.1, 0.5, x + 0.1, 1.0, 0.08), identity.second if paws > 0.4 else identity.shade)
    pen.fill(ellipse(0.12, 0.44, 0.62, 0.3 + 0.08 * build), identity.shade, coat=coat_of(identity))
    if belly > 0.35 and identity.pattern == "plain":
        pen.fill(ellipse(0.12, 0.62, 0.4, 0.08 + 0.08 * belly), identity.second, outline=False)


def _cat_head(pen: Pen, identity: Identity, x: float, y: float, s: float) -> Anchors:
    ears, ear_width, spread, build, _, muzzle, eyes, _ = identity.shape
    height, foot = 0.2 + 0.24 * ears, 0.06 - 0.08 * ear_width
    for side in _BOTH:
        tip = (x + side * (0.34 + 0.12 * spread) * s, y - (0.32 + height) * s)
        pen.fill(polygon((x + side * 0.44 * s, y - 0.12 * s), tip, (x + side * foot * s, y - 0.33 * s)), identity.shade)
        inner = (x + side * (0.33 + 0.1 * spread) * s, y - (0.22 + height) * s)
        base = ((x + side * 0.38 * s, y - 0.22 * s), inner, (x + side * 0.16 * s, y - 0.32 * s))
        pen.fill(polygon(*base), identity.second, outline=False)
    coat = coat_of(identity) if identity.pattern == "striped" else None
    pen.fill(ellipse(x, y, (0.46 + 0.08 * build) * s, 0.4 * s), identity.shade, coat=coat)
    if muzzle > 0.45:
        pen.fill(ellipse(x, y + 0.2 * s, 0.24 * s, 0.16 * s), mix(identity.second, CREAM, 0.4), outline=False)
    for side in _BOTH:
        draw_eye(pen, x + side * 0.2 * s, y - 0.02 * s, (0.08 + 0.04 * eyes) * s, identity.eye)
    nose = ((x - 0.06 * s, y + 0.13 * s), (x + 0.06 * s, y + 0.13 * s), (x, y + 0.2 * s))
    pen.fill(polygon(*nose), NOSE, outline=False)
    whisker: Rgb = (250, 250, 250) if luminance(identity.shade) < 110 else (70, 60, 70)
    for side in _BOTH:
        for k in (0, 1):
            start = (x + side * 0.22 * s, y + (0.17 + 0.07 * k) * s)
            pen.line(curve(start, (x + side * 0.62 * s, y + (0.12 + 0.14 * k) * s)), whisker, 0.03 * s)
    return _face_anchors(x, y, s, top=0.38)


def _dog_head(pen: Pen, identity: Identity, x: float, y: float, s: float) -> Anchors:
    ears, length, ear_width, build, _, tongue, eyes, _ = identity.shape
    hanging = ears < 0.65
    if not hanging:
        for side in _BOTH:
            tip = (x + side * (0.4 + 0.1 * ear_width) * s, y - (0.5 + 0.2 * length) * s)
            corners = ((x + side * 0.42 * s, y - 0.1 * s), tip, (x + side * 0.1 * s, y - 0.34 * s))
            pen.fill(polygon(*corners), identity.second)
    coat = coat_of(identity) if identity.pattern == "striped" else None
    pen.fill(ellipse(x, y, 0.42 * s, 0.42 * s), identity.shade, coat=coat)
    if hanging:
        drop = 0.26 + 0.22 * length
        for side in _BOTH:
            ear = ellipse(x + side * 0.46 * s, y + (0.6 * drop - 0.16) * s, (0.12 + 0.06 * ear_width) * s, drop * s)
            pen.fill(ear, identity.second)
    muzzle = mix(identity.shade, CREAM, 0.7)
    pen.fill(ellipse(x, y + 0.2 * s, (0.22 + 0.06 * build) * s, 0.2 * s), muzzle, outline=False)
    if tongue > 0.5:
        pen.fill(box(x - 0.07 * s, y + 0.28 * s, x + 0.07 * s, y + 0.48 * s, 0.07 * s), NOSE, outline=False)
    pen.fill(ellipse(x, y + 0.11 * s, 0.11 * s, 0.08 * s), (36, 30, 34), outline=False)
    for side in _BOTH:
        draw_eye(pen, x + side * 0.18 * s, y - 0.1 * s, (0.07 + 0.03 * eyes) * s, identity.eye)
    return _face_anchors(x, y, s, top=0.4)


def _rabbit_head(pen: Pen, identity: Identity, x: float, y: float, s: float) -> Anchors:
    ears, flop, ear_width, build, _, _, eyes, _ = identity.shape
    length, width = 0.32 + 0.3 * ears, 0.1 + 0.06 * ear_width
    for side in _BOTH:
        if flop > 0.7 and side > 0:
            pen.fill(ellipse(x + 0.42 * s, y - 0.3 * s, 0.3 * s, width * s), identity.shade)
            pen.fill(ellipse(x + 0.42 * s, y - 0.3 * s, 0.2 * s, width * 0.5 * s), identity.second, outline=False)
            continue
        middle = y - (0.3 + length * 0.7) * s
        pen.fill(ellipse(x + side * 0.2 * s, middle, width * s, length * 0.85 * s), identity.shade)
        pen.fill(ellipse(x + side * 0.2 * s, middle, width * 0.5 * s, length * 0.6 * s), identity.second, outline=False)
    coat = coat_of(identity) if identity.pattern == "striped" else None
    pen.fill(ellipse(x, y, (0.41 + 0.05 * build) * s, 0.37 * s), identity.shade, coat=coat)
    for side in _BOTH:
        pen.fill(ellipse(x + side * 0.26 * s, y + 0.16 * s, 0.1 * s, 0.07 * s), (250, 160, 170), outline=False)
    pen.fill(ellipse(x, y + 0.18 * s, 0.16 * s, 0.12 * s), mix(identity.shade, WHITE, 0.8), outline=False)
    pen.fill(ellipse(x, y + 0.1 * s, 0.055 * s, 0.04 * s), NOSE, outline=False)
    pen.fill(box(x - 0.06 * s, y + 0.22 * s, x + 0.06 * s, y + 0.34 * s, 0.02 * s), WHITE, line_width=0.025)
    for side in _BOTH:
        draw_eye(pen, x + side * 0.19 * s, y - 0.04 * s, (0.075 + 0.03 * eyes) * s, identity.eye)
    return _face_anchors(x, y, s, top=0.34)


def _face_anchors(x: float, y: float, s: float, *, top: float) -> Anchors:
    return Anchors(
        Anchor(x, y - 0.04 * s, 0.2 * s), Anchor(x, y - top * s, 0.42 * s), Anchor(x, y + 0.42 * s, 0.36 * s)
    )


_HEADS: Final[dict[str, Callable[[Pen, Identity, float, float, float], Anchors]]] = {
    "cat": _cat_head,
    "dog": _dog_head,
    "rabbit": _rabbit_head,
}


def draw_bird(pen: Pen, identity: Identity) -> Anchors:
    """Draw a bird, seen from the side."""
    tail, beak, wing, build, belly, crest, legs, _ = identity.shape
    pen.fill(polygon((0.45, 0.25), (1.02, -0.1 + 0.3 * tail), (1.0, 0.35), (0.5, 0.5)), identity.second)
    for x in (-0.1, 0.14):
        pen.line(curve((x, 0.7), (x, 0.98)), _LEGS, 0.05 + 0.03 * legs)
        pen.line(curve((x - 0.14, 0.99), (x + 0.08, 0.99)), _LEGS, 0.06)
    pen.fill(ellipse(0.06, 0.32, 0.54 + 0.08 * build, 0.45), identity.shade, coat=coat_of(identity))
    if belly > 0.35 and identity.pattern == "plain":
        pen.fill(ellipse(-0.1, 0.45, 0.33, 0.28), identity.second, outline=False)
    if crest > 0.45:
        pen.fill(polygon((-0.42, -0.55), (-0.25, -0.8 - 0.15 * crest), (-0.16, -0.6)), identity.second)
        pen.fill(polygon((-0.28, -0.55), (-0.02, -0.7 - 0.15 * crest), (-0.05, -0.5)), identity.second)
    pen.fill(ellipse(-0.28, -0.22, 0.38, 0.37), identity.shade)
    pen.fill(polygon((-0.6, -0.28), (-0.82 - 0.22 * beak, -0.1), (-0.58, -0.02)), _BEAK)
    pen.fill(ellipse(0.24, 0.28, 0.3, 0.17 + 0.1 * wing), identity.second)
    pen.dot(-0.4, -0.26, 0.11, WHITE)
    pen.dot(-0.42, -0.26, 0.065, PUPIL)
    return Anchors(Anchor(-0.4, -0.26, 0.16), Anchor(-0.27, -0.55, 0.34), Anchor(-0.26, 0.12, 0.36))


def draw_fish(pen: Pen, identity: Identity) -> Anchors:
    """Draw a fish, seen from the side, swimming just above the ground."""
    tail, fin, build, belly, _, mask, _, eyes = identity.shape
    drop = 0.1
    spread = 0.34 + 0.18 * tail
    caudal = ((0.45, 0.05), (0.98, 0.0 - spread), (0.86, 0.05), (0.98, 0.1 + spread))
    pen.fill(polygon(*((x, y + drop) for x, y in caudal)), identity.second)
    pen.fill(polygon((-0.2, -0.25), (0.1, -0.62 - 0.2 * fin), (0.4, -0.2)), identity.second)
    pen.fill(polygon((0, 0.5), (0.18, 0.78 + 0.1 * belly), (0.36, 0.45)), identity.second)
    pen.fill(ellipse(-0.1, 0.05 + drop, 0.68, 0.36 + 0.14 * build), identity.shade, coat=coat_of(identity))
    if mask > 0.35:
        pen.fill(ellipse(-0.56, 0.02 + drop, 0.2, 0.26), identity.second, outline=False)
    elif identity.pattern != "plain":
        pen.fill(ellipse(-0.56, 0.02 + drop, 0.2, 0.26), identity.shade, outline=False)
    pen.fill(polygon((0.02, 0.18), (0.3, 0.08), (0.26, 0.4)), identity.second, line_width=0.035)
    pen.dot(-0.5, 0.04, 0.11 + 0.04 * eyes, WHITE)
    pen.dot(-0.53, 0.04, 0.06 + 0.03 * eyes, PUPIL)
    pen.line(curve((-0.76, 0.3), (-0.62, 0.38), (-0.5, 0.32)), _MOUTH, 0.045)
    return Anchors(Anchor(-0.5, 0.04, 0.17), Anchor(-0.3, -0.3, 0.34), Anchor(-0.28, 0.44, 0.34))
