"""Backdrops in picture units: plain colour; beach, forest, snow and city by day and by night; room and space."""

from __future__ import annotations

import math
from collections.abc import Callable
from random import Random
from typing import Final

import skia

from workers.engine.storybook.canvas import Path, Pen, curve, ellipse, polygon
from workers.engine.storybook.palette import COLOURS, INK, WHITE, Rgb, mix, nudge
from workers.engine.storybook.world import SIZE, Scene

_DAY_SKY: Final[tuple[Rgb, Rgb]] = ((132, 200, 240), (214, 238, 248))
_NIGHT_SKY: Final[tuple[Rgb, Rgb]] = ((18, 22, 58), (52, 58, 110))
_MOON: Final[Rgb] = (250, 244, 210)
_SUN: Final[Rgb] = (255, 224, 96)

_WALLS: Final[tuple[Rgb, ...]] = ((244, 226, 196), (206, 226, 206), (204, 220, 234), (238, 212, 208), (222, 214, 232))
_CURTAINS: Final[tuple[Rgb, ...]] = ((206, 128, 112), (112, 158, 152), (198, 158, 92))
_WOOD: Final[Rgb] = (186, 136, 92)
_FRAME: Final[Rgb] = (252, 249, 242)
_SPACE: Final[tuple[Rgb, Rgb]] = ((20, 16, 52), (62, 42, 98))
_LUNAR: Final[Rgb] = (168, 168, 180)
_STARLIGHT: Final[tuple[Rgb, ...]] = ((255, 255, 255), (255, 244, 206), (206, 222, 255))


def draw_backdrop(pen: Pen, scene: Scene, rng: Random) -> None:
    """Fill the whole picture with the scene's place; `rng` places what varies from picture to picture."""
    _PLACES[scene.place](pen, scene, rng)


def _dim(scene: Scene, colour: Rgb) -> Rgb:
    """Return the colour as it looks under the scene's light."""
    if not scene.night:
        return colour
    return mix((colour[0] * 0.34, colour[1] * 0.38, colour[2] * 0.58), (20, 24, 60), 0.15)


def _sky(pen: Pen, scene: Scene, rng: Random, bottom: float, day: tuple[Rgb, Rgb] = _DAY_SKY) -> None:
    upper, lower = _NIGHT_SKY if scene.night else day
    pen.gradient(0, bottom, SIZE, upper, lower)
    if scene.night:
        pen.dot(scene.sun, 10, 5, _MOON)
        pen.dot(scene.sun + 2.4, 8.6, 4.2, mix(upper, lower, 0.2))
        for _ in range(9):
            pen.dot(rng.uniform(0, SIZE), rng.uniform(0, scene.horizon - 12), rng.choice((0.5, 0.7)), (255, 250, 220))
    elif day is _DAY_SKY:
        pen.dot(scene.sun, 10, 5, _SUN)


def _plain(pen: Pen, scene: Scene, rng: Random) -> None:
    colour = nudge(rng, COLOURS[scene.background])
    if scene.background not in ("white", "black"):
        colour = mix(colour, WHITE, 0.18)
    pen.rectangle(0, 0, SIZE, SIZE, colour)
    pen.fill(ellipse(32, 58, 22, 4), mix(colour, INK, 0.16), outline=False)


def _beach(pen: Pen, scene: Scene, rng: Random) -> None:
    line = scene.horizon
    _sky(pen, scene, rng, line - 8)
    pen.rectangle(0, line - 10, SIZE, line, _dim(scene, (44, 150, 190)))
    pen.rectangle(0, line - 3, SIZE, line - 1.6, _dim(scene, (200, 236, 240)))
    pen.rectangle(0, line - 1, SIZE, SIZE, _dim(scene, (244, 216, 152)))
    if scene.variant > 0.35:
        _palm(pen, scene, 6 if scene.variant > 0.7 else 58)
    for _ in range(4):
        pen.dot(rng.uniform(0, SIZE), rng.uniform(line + 4, 63), 0.7, _dim(scene, (220, 184, 120)))


def _palm(pen: Pen, scene: Scene, x: float) -> None:
    line, lean = scene.horizon, 1 if x < SIZE / 2 else -1
    trunk = curve((x, line + 6), (x + 2 * lean, line - 12), (x + 5 * lean, line - 24))
    pen.line(trunk, _dim(scene, (136, 96, 60)), 2.6)
    crown = x + 5 * lean
    for k in range(5):
        angle = math.pi * k / 4
        tip = (crown + 11 * math.cos(angle), line - 21 - 5 * math.sin(angle))
        back = (crown + 5 * math.cos(angle), line - 28 - 4 * math.sin(angle))
        pen.fill(polygon((crown, line - 25), tip, back), _dim(scene, (58, 150, 70)), outline=False)


def _forest(pen: Pen, scene: Scene, rng: Random) -> None:
    line = scene.horizon
    _sky(pen, scene, rng, line, ((150, 206, 170), (210, 236, 200)))
    for k in range(7):
        x = k * 10.5 + scene.variant * 8 - 4 + rng.uniform(-1.5, 1.5)
        height = rng.uniform(22, 34)
        leaves = _dim(scene, mix((36, 110, 62), (72, 150, 76), rng.random()))
        pen.rectangle(x - 1.3, line - 8, x + 1.3, line + 2, _dim(scene, (98, 70, 48)))
        if scene.round_trees:
            pen.dot(x, line - height * 0.55, 7.2, leaves)
        else:
            pen.fill(polygon((x - 7, line - 5), (x, line - height), (x + 7, line - 5)), leaves, outline=False)
    pen.rectangle(0, line - 1, SIZE, SIZE, _dim(scene, (96, 160, 76)))
    for _ in range(7):
        x, y = rng.uniform(0, SIZE), rng.uniform(line + 3, 63)
        pen.line(curve((x, y), (x + 0.6, y - 2.4)), _dim(scene, (60, 124, 56)), 0.8)


def _snow(pen: Pen, scene: Scene, rng: Random) -> None:
    line = scene.horizon
    _sky(pen, scene, rng, line, ((176, 206, 232), (226, 238, 248)))
    for k in range(3):
        x, height = k * 26 + scene.variant * 16 - 6, rng.uniform(16, 28)
        mountain = polygon((x - 18, line), (x, line - height), (x + 18, line))
        pen.fill(mountain, _dim(scene, (134, 152, 182)), outline=False)
        foot, dip = line - height * 0.66, line - height * 0.56
        cap = polygon((x - 6, foot), (x, line - height), (x + 6, foot), (x + 2, dip), (x - 2, foot + height * 0.04))
        pen.fill(cap, _dim(scene, (250, 252, 255)), outline=False)
    pen.rectangle(0, line - 1, SIZE, SIZE, (120, 136, 180) if scene.night else (244, 248, 253))
    flake: Rgb = (200, 210, 235) if scene.night else WHITE
    for _ in range(16):
        pen.dot(rng.uniform(0, SIZE), rng.uniform(0, SIZE), rng.choice((0.7, 1.0)), flake)


def _city(pen: Pen, scene: Scene, rng: Random) -> None:
    line = scene.horizon
    _sky(pen, scene, rng, line)
    x = -3 + scene.variant * 3
    while x < SIZE:
        width, height = rng.uniform(8, 13), rng.uniform(18, 42)
        wall = mix((120, 126, 150), (176, 150, 140), rng.random())
        colour = mix(wall, (24, 26, 54), 0.72) if scene.night else wall
        pen.rectangle(x, line - height, x + width, line, colour)
        lit: Rgb = (255, 220, 110) if scene.night else (214, 232, 242)
        pen.fill(_windows(scene, rng, x, (line - height, x + width)), lit, outline=False)
        x += width + 0.8
    pen.rectangle(0, line - 1, SIZE, SIZE, _dim(scene, (120, 122, 130)))
    pen.rectangle(0, line - 1, SIZE, line + 2, _dim(scene, (178, 178, 182)))
    for k in range(4):
        left = k * 18 + scene.variant * 10 - 4
        pen.rectangle(left, line + 11, left + 8, line + 12.4, _dim(scene, (236, 226, 150)))


def _windows(scene: Scene, rng: Random, left: float, corner: tuple[float, float]) -> Path:
    """Return a building's windows as one path, which draws ten times faster than one by one."""
    top, right = corner
    windows = skia.Path()
    y = top + 3
    while y < scene.horizon - 4:
        x = left + 1.6
        while x < right - 2.2:
            if rng.random() < (0.6 if scene.night else 0.8):
                windows.addRect(skia.Rect(x, y, x + 1.9, y + 2.2))
            x += 3.4
        y += 4.4
    return windows


def _room(pen: Pen, scene: Scene, rng: Random) -> None:
    line = scene.horizon
    wall = nudge(rng, rng.choice(_WALLS))
    pen.rectangle(0, 0, SIZE, line, wall)
    for k in range(9):
        pen.rectangle(k * 8 - 1.5, 0, k * 8 + 1.5, line, mix(wall, WHITE, 0.22))
    window_left = scene.variant > 0.5
    _window(pen, 2.5 if window_left else 42.5, rng.choice(_CURTAINS))
    _framed_picture(pen, 47 if window_left else 5, rng)
    pen.rectangle(0, line, SIZE, SIZE, _WOOD)
    pen.rectangle(0, line - 3, SIZE, line, _FRAME)
    pen.rectangle(0, line - 0.5, SIZE, line + 0.5, mix(_WOOD, INK, 0.4))
    _planks(pen, line, rng)
    rug = nudge(rng, mix(rng.choice(_CURTAINS), WHITE, 0.3))
    pen.fill(ellipse(32, 57, 29, 6), rug, outline=False)
    pen.fill(ellipse(32, 57, 26, 4.8), mix(rug, WHITE, 0.3), outline=False)


def _window(pen: Pen, left: float, curtain: Rgb) -> None:
    """Draw a window on a blue sky, 19 wide, between two curtains under a rod."""
    pen.rectangle(left + 1.5, 4, left + 17.5, 25, _FRAME)
    pen.rectangle(left + 3, 5.5, left + 16, 23.5, (150, 208, 242))
    pen.fill(ellipse(left + 9.5, 24, 9, 4.5), (128, 186, 112), outline=False)
    pen.rectangle(left + 8.9, 5, left + 10.1, 24, _FRAME)
    pen.rectangle(left + 2, 13.5, left + 17, 14.7, _FRAME)
    pen.rectangle(left + 1, 23.5, left + 18, 25.4, _FRAME)
    for outer, inner in ((left, left + 5.5), (left + 19, left + 13.5)):
        knot = outer + (inner - outer) * 0.5
        pen.fill(polygon((outer, 3.5), (inner, 3.5), (knot, 17), (inner, 27), (outer, 27)), curtain, outline=False)
    pen.line(curve((left - 1.5, 3.5), (left + 20.5, 3.5)), mix(_WOOD, INK, 0.4), 1.2)


def _framed_picture(pen: Pen, left: float, rng: Random) -> None:
    """Draw a small landscape in a wooden frame, 12 wide."""
    pen.rectangle(left, 8, left + 12, 19, mix(_WOOD, INK, 0.3))
    pen.rectangle(left + 1.3, 9.3, left + 10.7, 17.7, (236, 226, 196))
    pen.dot(left + rng.uniform(3.5, 8.5), 12, 1.4, (226, 146, 92))
    peak = left + rng.uniform(4, 8)
    pen.fill(polygon((left + 1.3, 17.7), (peak, 13.2), (left + 10.7, 17.7)), (104, 148, 138), outline=False)


def _planks(pen: Pen, line: float, rng: Random) -> None:
    """Draw floor boards that widen towards the viewer, with their butt joints."""
    seam, y, gap = mix(_WOOD, INK, 0.25), line + 3, 3.0
    while y < SIZE:
        pen.rectangle(0, y, SIZE, y + 0.6, seam)
        for x in (rng.uniform(0, 30), rng.uniform(34, SIZE)):
            pen.rectangle(x, y, x + 0.6, y + gap + 1, seam)
        gap += 1
        y += gap


def _space(pen: Pen, scene: Scene, rng: Random) -> None:
    pen.gradient(0, SIZE, SIZE, *_SPACE)
    for _ in range(34):
        size = rng.choice((0.45, 0.6, 0.9))
        pen.dot(rng.uniform(0, SIZE), rng.uniform(0, scene.horizon), size, rng.choice(_STARLIGHT))
    if scene.variant > 0.5:
        _earth(pen, scene.sun, 10.5)
    else:
        _ringed_planet(pen, scene.sun, 11)
    pen.fill(ellipse(32, scene.horizon + 33, 66, 34), _LUNAR, outline=False)
    for k in range(6):
        x, y = k * 12 + rng.uniform(-4, 8), rng.uniform(scene.horizon + 5, 63)
        width = rng.uniform(2.4, 4.8)
        pen.fill(ellipse(x, y + 0.5, width + 0.6, width * 0.42 + 0.4), mix(_LUNAR, WHITE, 0.45), outline=False)
        pen.fill(ellipse(x, y, width, width * 0.42), mix(_LUNAR, INK, 0.3), outline=False)


def _earth(pen: Pen, x: float, y: float) -> None:
    globe = ellipse(x, y, 7.5, 7.5)
    pen.fill(globe, (64, 138, 214), outline=False)
    pen.canvas.save()
    pen.canvas.clipPath(globe, True)
    for dx, dy, rx, ry in ((-4, -2.5, 4, 3), (-1.5, 4, 2.4, 3.6), (5, 0.5, 2.6, 4)):
        pen.fill(ellipse(x + dx, y + dy, rx, ry), (98, 176, 100), outline=False)
    for dx, dy in ((2, -5.6), (-3.5, 1.6), (3.4, 5.4)):
        pen.fill(ellipse(x + dx, y + dy, 3.4, 0.9), (240, 246, 252), outline=False)
    pen.canvas.restore()


def _ringed_planet(pen: Pen, x: float, y: float) -> None:
    pen.dot(x, y, 6.4, (228, 152, 104))
    pen.fill(ellipse(x, y - 2, 5.6, 1.1), (242, 186, 136), outline=False)
    pen.fill(ellipse(x, y + 3.2, 5, 0.9), (200, 120, 84), outline=False)
    ring = curve((x - 11, y + 3), (x - 7, y + 5), (x + 7, y + 1), (x + 11, y - 3))
    pen.line(ring, (246, 222, 176), 1.5)


_PLACES: Final[dict[str, Callable[[Pen, Scene, Random], None]]] = {
    "plain": _plain,
    "beach": _beach,
    "forest": _forest,
    "snow": _snow,
    "city": _city,
    "room": _room,
    "space": _space,
}
