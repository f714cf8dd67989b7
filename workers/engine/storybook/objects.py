"""Robots, teapots, houses, cars, boats, mugs and chairs, in a local box [-1, 1] x [-1, 1] whose ground is y = 1."""

from __future__ import annotations

from typing import Final

import skia

from workers.engine.storybook.anatomy import Anchor, Anchors, coat_of, darker
from workers.engine.storybook.canvas import Path, Pen, box, curve, ellipse, polygon
from workers.engine.storybook.identity import Identity
from workers.engine.storybook.palette import WHITE, Rgb, mix
from workers.engine.storybook.world import FRONT

_STEEL: Final[Rgb] = (150, 154, 164)
_DARK_STEEL: Final[Rgb] = (120, 124, 134)
_VISOR: Final[Rgb] = (40, 48, 66)
_GLASS: Final[Rgb] = (184, 222, 244)
_WOOD: Final[Rgb] = (130, 86, 56)
_TYRE: Final[Rgb] = (46, 44, 52)
_BOTH: Final = (-1, 1)


def draw_robot(pen: Pen, identity: Identity, pose: int) -> Anchors:
    """Draw a robot facing us, arms raised or lowered by the pose."""
    antenna, corners, head_corners, head, lamps, panel, arms, _ = identity.shape
    tip = -0.78 - 0.14 * antenna
    pen.line(curve((0, -0.62), (0, tip)), (90, 90, 100), 0.06)
    pen.dot(0, tip - 0.03, 0.08 + 0.04 * antenna, identity.second)
    hand = (0.78, -0.25) if pose == FRONT else (0.78, 0.6)
    elbow = (0.8, 0.0) if pose == FRONT else (0.8, 0.25)
    for side in _BOTH:
        arm = curve((side * 0.45, 0.15), (side * elbow[0], elbow[1]), (side * hand[0], hand[1]))
        pen.stroke(arm, _STEEL, 0.11 + 0.05 * arms)
        pen.fill(box(side * 0.24 - 0.13, 0.75, side * 0.24 + 0.13, 1.0, 0.05), _DARK_STEEL)
    pen.fill(box(-0.48, 0.02, 0.48, 0.8, 0.08 + 0.24 * corners), identity.shade, coat=coat_of(identity))
    if identity.pattern == "plain":
        half = 0.2 + 0.12 * panel
        pen.fill(box(-half, 0.22, half, 0.56, 0.05), identity.second)
    half = 0.48 + 0.09 * head
    pen.fill(box(-half, -0.62, half, 0.02, 0.06 + 0.26 * head_corners), mix(identity.shade, WHITE, 0.2))
    pen.fill(box(-0.38, -0.46, 0.38, -0.16, 0.12), _VISOR, outline=False)
    lamp: Rgb = (120, 240, 250) if lamps > 0.5 else (255, 220, 90)
    for side in _BOTH:
        pen.dot(side * 0.19, -0.31, 0.11, lamp)
        pen.dot(side * 0.19, -0.31, 0.045, (20, 30, 50))
    pen.line(curve((-0.16, -0.07), (0.16, -0.07)), _VISOR, 0.05)
    return Anchors(Anchor(0, -0.31, 0.2), Anchor(0, -0.6, 0.44), Anchor(0, 0.04, 0.4))


def draw_teapot(pen: Pen, identity: Identity) -> Anchors:
    """Draw a teapot with its spout to the left."""
    spout, build, lid, knob, handle, foot, _, _ = identity.shape
    reach = 0.92 + 0.16 * handle
    grip = curve((0.4, 0.05), (reach + 0.08, -0.2), (reach, 0.65), (0.42, 0.62))
    pen.stroke(grip, identity.second, 0.13)
    tip = -0.2 * spout
    neck = ((-0.45, 0.62), (-0.92, tip), (-1.0, tip - 0.02), (-1.02, tip - 0.14), (-0.78, tip - 0.16), (-0.42, 0.2))
    pen.fill(polygon(*neck), identity.shade)
    pen.fill(ellipse(0, 0.42, 0.58, 0.47 + 0.1 * build), identity.shade, coat=coat_of(identity))
    pen.fill(box(-0.3, 0.88, 0.3, 1.0, 0.05), identity.second if foot > 0.4 else darker(identity.shade))
    pen.fill(ellipse(0, -0.06, 0.34, 0.12 + 0.12 * lid), identity.second)
    pen.fill(ellipse(0, -0.28 - 0.1 * lid, 0.07 + 0.06 * knob, 0.1), identity.shade)
    return Anchors(Anchor(0, 0.32, 0.2), Anchor(0, -0.22, 0.4), Anchor(0, 0.56, 0.5))


def draw_house(pen: Pen, identity: Identity) -> Anchors:
    """Draw a house with a gable roof."""
    width, roof, chimney, door, arch, lights, windows, side = identity.shape
    half, height = 0.58 + 0.18 * width, 0.62 + 0.34 * roof
    if chimney > 0.4:
        x = 0.38 if side > 0.5 else -0.38
        pen.fill(box(x - 0.09, -0.85, x + 0.09, -0.3, 0.02), (150, 100, 86))
    pen.fill(box(-half, -0.12, half, 1.0, 0.02), identity.shade, coat=coat_of(identity))
    pen.fill(polygon((-half - 0.16, -0.1), (0, -0.1 - height), (half + 0.16, -0.1)), identity.second)
    leaf = identity.second if door > 0.5 else _WOOD
    pen.fill(box(-0.16, 0.42, 0.16, 1.0, 0.14 if arch > 0.5 else 0.02), leaf)
    pen.dot(0.08, 0.74, 0.04, (246, 208, 90))
    pane: Rgb = (255, 236, 150) if lights > 0.5 else (170, 214, 240)
    size = 0.11 + 0.06 * windows
    for sign in _BOTH:
        x = sign * half * 0.64
        pen.fill(box(x - size, 0.1, x + size, 0.1 + 2 * size, 0.02), pane)
    return Anchors(Anchor(0, 0.2, 0.24), Anchor(0, 0.02 - height, 0.36), Anchor(0, 0.5, 0.5))


def draw_car(pen: Pen, identity: Identity) -> Anchors:
    """Draw a car seen from the side, its nose to the left."""
    height, front, back, bonnet, trim, hubs, wheels, _ = identity.shape
    roof = -0.28 - 0.2 * height
    screen, rear = -0.36 + 0.14 * front, 0.3 + 0.18 * back
    cabin = ((-0.5, 0.3), (screen, roof), (rear, roof), (0.62, 0.3))
    pen.fill(polygon(*cabin), identity.second)
    for pane in (
        ((-0.38, 0.26), (screen + 0.08, roof + 0.1), (0.0, roof + 0.1), (0.0, 0.26)),
        ((0.08, 0.26), (0.08, roof + 0.1), (rear - 0.04, roof + 0.1), (0.47, 0.26)),
    ):
        pen.fill(polygon(*pane), _GLASS, line_width=0.03)
    pen.fill(box(-0.98, 0.22, 0.98, 0.78, 0.1 + 0.12 * bonnet), identity.shade, coat=coat_of(identity))
    if trim > 0.5 and identity.pattern == "plain":
        pen.rectangle(-0.94, 0.52, 0.94, 0.62, identity.second)
    pen.fill(ellipse(-0.9, 0.42, 0.09, 0.1), (255, 240, 150))
    for side in _BOTH:
        pen.fill(ellipse(side * 0.55, 0.78, 0.23, 0.23), _TYRE)
        pen.dot(side * 0.55, 0.78, 0.08 + 0.06 * wheels, identity.second if hubs > 0.5 else (206, 208, 214))
    return Anchors(Anchor(-0.3, 0.08, 0.2), Anchor(0.02, roof - 0.02, 0.42), Anchor(0, 0.5, 0.5))


def draw_boat(pen: Pen, identity: Identity) -> Anchors:
    """Draw a boat with two sails."""
    _, main, jib, canvas, portholes, keel, flag, _ = identity.shape
    pen.line(curve((0, 0.4), (0, -0.92)), _WOOD, 0.07)
    white: Rgb = (250, 248, 240)
    pen.fill(polygon((0.07, -0.88), (0.07, 0.26), (0.66 + 0.24 * main, 0.26)), identity.second)
    front = white if canvas > 0.5 else identity.second
    pen.fill(polygon((-0.07, -0.7), (-0.07, 0.26), (-0.44 - 0.24 * jib, 0.26)), front)
    if flag > 0.4:
        pen.fill(polygon((0.02, -0.98), (0.02, -0.84), (0.24 + 0.1 * flag, -0.91)), identity.shade, line_width=0.03)
    pen.fill(_hull(keel), identity.shade, coat=coat_of(identity))
    if portholes > 0.4 and identity.pattern == "plain":
        for x in (-0.4, 0.0, 0.4):
            pen.fill(ellipse(x, 0.62, 0.1, 0.1), identity.second, line_width=0.03)
    return Anchors(Anchor(0, 0.55, 0.2), Anchor(0, -0.72, 0.36), Anchor(0, 0.42, 0.55))


def _hull(keel: float) -> Path:
    path = skia.Path()
    end = 0.42 + 0.16 * keel
    path.moveTo(-0.95, 0.36)
    path.lineTo(0.95, 0.36)
    path.quadTo(0.85, 0.95, end, 0.96)
    path.lineTo(-end, 0.96)
    path.quadTo(-0.85, 0.9, -0.95, 0.36)
    path.close()
    return path


def draw_mug(pen: Pen, identity: Identity) -> Anchors:
    """Draw a mug with its handle to the right."""
    width, height, taper, handle, rim, steam, foot, full = identity.shape
    half, top = 0.5 + 0.14 * width, -0.12 - 0.3 * height
    base = half * (0.72 + 0.28 * taper)
    middle, reach = (top + 0.94) / 2, 0.2 + 0.2 * handle
    grip = curve((base, 0.8), (half + 2.2 * reach, 0.75), (half + 2.2 * reach, middle - 0.3), (half, top + 0.18))
    pen.stroke(grip, identity.second if rim > 0.5 else identity.shade, 0.13)
    pen.fill(polygon((-half, top), (half, top), (base, 0.98), (-base, 0.98)), identity.shade, coat=coat_of(identity))
    if foot > 0.5:
        pen.fill(box(-base - 0.04, 0.88, base + 0.04, 1.0, 0.04), identity.second)
    pen.fill(ellipse(0, top, half, 0.13), identity.second if rim > 0.5 else mix(identity.shade, WHITE, 0.4))
    drink: Rgb = (104, 66, 44) if full > 0.5 else (150, 190, 110)
    pen.fill(ellipse(0, top + 0.01, half * 0.8, 0.085), drink, outline=False)
    if steam > 0.45:
        for x in (-0.18, 0.14):
            wisp = curve((x, top - 0.16), (x + 0.14, top - 0.28), (x - 0.12, top - 0.36), (x + 0.02, top - 0.5))
            pen.line(wisp, (236, 238, 244), 0.06)
    return Anchors(Anchor(0, 0.3, 0.2), Anchor(0, top + 0.02, 0.42), Anchor(0, 0.52, half - 0.06))


def draw_chair(pen: Pen, identity: Identity) -> Anchors:
    """Draw a chair seen from the front: wooden legs and an upholstered back, or an armchair."""
    back, seat, arms, round_, legs, _, width, lean = identity.shape
    half, top = 0.5 + 0.12 * width, -0.62 - 0.3 * back
    wood = identity.second if legs > 0.5 else _WOOD
    edge = 0.06 + 0.24 * round_
    rest = polygon(
        (-half + 0.1, 0.3), (-half + 0.02 + 0.1 * lean, top), (half - 0.02 - 0.1 * lean, top), (half - 0.1, 0.3)
    )
    if arms > 0.5:
        for side in _BOTH:
            pen.fill(box(side * (half - 0.08) - 0.07, 0.8, side * (half - 0.08) + 0.07, 1.0, 0.02), wood)
        pen.fill(box(-half, top, half, 0.5, edge), identity.shade, coat=coat_of(identity))
        pen.fill(box(-half, 0.3, half, 0.86, 0.1), identity.shade, coat=coat_of(identity))
        pen.fill(box(-half + 0.16, 0.26, half - 0.16, 0.44 + 0.1 * seat, 0.08), identity.second)
        for side in _BOTH:
            pen.fill(box(side * half - 0.15, 0.06, side * half + 0.15, 0.88, 0.13), identity.shade)
        return Anchors(Anchor(0, -0.16, 0.2), Anchor(0, top + 0.02, 0.42), Anchor(0, 0.12, 0.5))
    for side in _BOTH:
        pen.fill(box(side * (half - 0.1) - 0.07, 0.4, side * (half - 0.1) + 0.07, 1.0, 0.02), wood)
    pen.fill(rest, identity.shade, coat=coat_of(identity))
    pen.fill(box(-half, 0.2, half, 0.42 + 0.14 * seat, edge * 0.5), identity.shade, coat=coat_of(identity))
    return Anchors(Anchor(0, -0.2, 0.2), Anchor(0, top + 0.02, 0.4), Anchor(0, 0.1, 0.46))
