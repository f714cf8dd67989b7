"""Picture styles: how colours are toned, lines are inked and the finished picture is treated.

A watercolor is bent along a smooth field, its pigment thins in blotches and stops short of the paper's ragged edge.
Every field is made once; a picture draws which of them it gets.
"""

from __future__ import annotations

from random import Random
from typing import Final

import numpy as np
from numpy.typing import NDArray

from workers.engine.storybook.palette import INK, Rgb, luminance, mix
from workers.engine.storybook.world import SIZE

Field = NDArray[np.float32]

OUTLINE: Final = {"cartoon": 1.1, "sketch": 0.95, "watercolor": 0.8}
"""Width of a thing's outline, in picture units."""

PAPER: Final[Rgb] = (254, 251, 243)
"""What a watercolor leaves unpainted at the edge."""

_PENCIL: Final[Rgb] = (70, 68, 72)
_NIGHT_LIGHT: Final = np.array([0.88, 0.90, 0.98], np.float32)
_PAPER: Final = np.array(PAPER, np.float32)
_SHEETS: Final = 16
_BEND, _THINNEST, _MARGIN, _RAGGED = 1.5, 0.36, 2.4, 2.6


def _smooth_noise(rng: np.random.Generator, cells: int) -> Field:
    """Draw value noise in [0, 1], smoothly interpolated between (cells + 1)^2 grid points: (64, 64)."""
    grid = rng.random((cells + 1, cells + 1))
    at = np.linspace(0, cells, SIZE, endpoint=False)
    cell = at.astype(int)
    t = at - cell
    t = t * t * (3 - 2 * t)  # (64,)
    rows = grid[cell] * (1 - t)[:, None] + grid[cell + 1] * t[:, None]  # (64, cells + 1)
    return np.asarray(rows[:, cell] * (1 - t) + rows[:, cell + 1] * t, np.float32)


def _bend(rng: np.random.Generator) -> NDArray[np.intp]:
    """Draw where each pixel of a bent picture comes from: flat indices (4096,)."""
    y, x = np.mgrid[:SIZE, :SIZE]
    shifted = [axis + _BEND * (2 * _smooth_noise(rng, 9) - 1) for axis in (y, x)]
    rows, columns = (np.clip(np.rint(axis), 0, SIZE - 1).astype(np.intp) for axis in shifted)
    return np.asarray(rows * SIZE + columns).reshape(-1)


def _wash(rng: np.random.Generator) -> Field:
    """Draw how much pigment each place of the paper takes, none at the ragged edge: (64, 64, 1)."""
    thin = _smooth_noise(rng, 5) * 0.7 + _smooth_noise(rng, 12) * 0.3
    y, x = np.mgrid[:SIZE, :SIZE]
    inside = np.minimum(np.minimum(x, SIZE - 1 - x), np.minimum(y, SIZE - 1 - y))
    edge = np.clip((inside - _MARGIN + _RAGGED * (2 * _smooth_noise(rng, 14) - 1)) / 1.2, 0, 1)
    edge[inside == 0] = 0
    return np.asarray(edge * (1 - _THINNEST * thin), np.float32)[..., None]


_GRAIN: Final = np.random.default_rng(5).uniform(-5, 5, (SIZE * 2, SIZE * 2, 1)).astype(np.float32)
_BENDS: Final = tuple(_bend(np.random.default_rng((6, k))) for k in range(_SHEETS))
_WASHES: Final = tuple(_wash(np.random.default_rng((7, k))) for k in range(_SHEETS))


def tone(style: str, colour: Rgb) -> Rgb:
    """Return the colour as the style shows it: a sketch is pale grey."""
    if style != "sketch":
        return colour
    grey = 140 + luminance(colour) * 0.43
    return (grey + 6, grey + 4, grey - 2)


def ink(style: str, colour: Rgb) -> Rgb:
    """Return the outline's colour around a filled shape; in a watercolor, pigment that gathered at the rim."""
    if style == "sketch":
        return _PENCIL
    if luminance(colour) <= 70:
        return mix(colour, (235, 235, 255), 0.33)
    return mix(colour, INK, 0.34 if style == "watercolor" else 0.62)


def bend(pixels: Field, style: str, seed: int) -> Field:
    """Return the (64, 64, ...) picture or mask as the style's hand distorts it; the same seed bends alike."""
    if style != "watercolor":
        return pixels
    return pixels.reshape(SIZE * SIZE, -1)[_BENDS[seed % _SHEETS]].reshape(pixels.shape)


def finish(pixels: Field, style: str, night: bool, rng: Random) -> NDArray[np.uint8]:
    """Give the (64, 64, 3) picture its paper grain, its wash or its night light."""
    if night:
        pixels = pixels * _NIGHT_LIGHT
    if style == "watercolor":
        pixels = _PAPER + (pixels - _PAPER) * rng.choice(_WASHES)
    if style != "cartoon":
        top, left = rng.randrange(SIZE), rng.randrange(SIZE)
        pixels = pixels + _GRAIN[top : top + SIZE, left : left + SIZE]
    return np.clip(pixels, 0, 255).astype(np.uint8)
