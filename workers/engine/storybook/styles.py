"""Picture styles: how colours are toned, lines are inked and the finished picture is treated."""

from __future__ import annotations

from random import Random
from typing import Final

import numpy as np
from numpy.typing import NDArray

from workers.engine.storybook.palette import INK, Rgb, luminance, mix
from workers.engine.storybook.world import SIZE

_PENCIL: Final[Rgb] = (70, 68, 72)
_NIGHT_LIGHT: Final = np.array([0.88, 0.90, 0.98], np.float32)
_GRAIN: Final = np.random.default_rng(5).uniform(-5, 5, (SIZE * 2, SIZE * 2, 1)).astype(np.float32)


def tone(style: str, colour: Rgb) -> Rgb:
    """Return the colour as the style shows it: a sketch is pale grey."""
    if style != "sketch":
        return colour
    grey = 140 + luminance(colour) * 0.43
    return (grey + 6, grey + 4, grey - 2)


def ink(style: str, colour: Rgb) -> Rgb:
    """Return the outline's colour around a filled shape."""
    if style == "sketch":
        return _PENCIL
    return mix(colour, INK, 0.62) if luminance(colour) > 70 else mix(colour, (235, 235, 255), 0.33)


def finish(pixels: NDArray[np.float32], style: str, night: bool, rng: Random) -> NDArray[np.uint8]:
    """Give the (64, 64, 3) picture its paper grain or its night light."""
    if night:
        pixels = pixels * _NIGHT_LIGHT
    if style == "sketch":
        top, left = rng.randrange(SIZE), rng.randrange(SIZE)
        pixels = pixels + _GRAIN[top : top + SIZE, left : left + SIZE]
    return np.clip(pixels, 0, 255).astype(np.uint8)
