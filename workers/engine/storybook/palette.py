"""Colours of the storybook world: named colours, their shades, and the arithmetic on them."""

from __future__ import annotations

import colorsys
from random import Random
from typing import Final

Rgb = tuple[float, float, float]

COLOURS: Final[dict[str, Rgb]] = {
    "red": (214, 54, 48),
    "orange": (240, 138, 40),
    "yellow": (246, 208, 60),
    "green": (76, 166, 80),
    "blue": (58, 112, 206),
    "purple": (142, 84, 182),
    "black": (52, 50, 58),
    "white": (242, 240, 234),
}
"""The colours that captions name."""

ACCENTS: Final[dict[str, Rgb]] = COLOURS | {
    "pink": (244, 142, 178),
    "brown": (140, 92, 58),
    "gray": (146, 150, 158),
    "teal": (40, 170, 170),
}
"""The colours an identity's second colour is drawn from; captions never name it."""

WHITE: Final[Rgb] = (255, 255, 255)
INK: Final[Rgb] = (20, 14, 30)

# How far a shade may leave its named colour and still deserve the name: hue, lightness, saturation.
_SPREAD: Final[dict[str, Rgb]] = {
    "red": (0.018, 0.10, 0.14),
    "orange": (0.016, 0.08, 0.12),
    "yellow": (0.014, 0.09, 0.14),
    "green": (0.060, 0.11, 0.14),
    "blue": (0.038, 0.12, 0.14),
    "purple": (0.036, 0.11, 0.14),
    "black": (0.500, 0.07, 0.06),
    "white": (0.500, 0.05, 0.10),
}
_ACCENT_SPREAD: Final[Rgb] = (0.015, 0.04, 0.08)
_CONTRAST: Final = 50


def mix(a: Rgb, b: Rgb, share_of_b: float) -> Rgb:
    """Blend two colours linearly."""
    keep = 1.0 - share_of_b
    return (a[0] * keep + b[0] * share_of_b, a[1] * keep + b[1] * share_of_b, a[2] * keep + b[2] * share_of_b)


def luminance(colour: Rgb) -> float:
    """Return the perceived brightness, 0 to 255."""
    return 0.30 * colour[0] + 0.59 * colour[1] + 0.11 * colour[2]


def shade(rng: Random, name: str) -> Rgb:
    """Draw one exact shade of a named colour, as far from it as the name allows."""
    return _jitter(rng, COLOURS[name], _SPREAD[name])


def accent(rng: Random, *, beside: Rgb) -> Rgb:
    """Draw a second colour from the whole palette, one that is far enough in brightness for patterns to show."""
    level = luminance(beside)
    names = [name for name, colour in ACCENTS.items() if abs(luminance(colour) - level) >= _CONTRAST]
    return _jitter(rng, ACCENTS[rng.choice(names)], _ACCENT_SPREAD)


def nudge(rng: Random, colour: Rgb) -> Rgb:
    """Vary a colour slightly, as a background does from picture to picture."""
    return _jitter(rng, colour, (0.012, 0.03, 0.03))


def _jitter(rng: Random, colour: Rgb, spread: Rgb) -> Rgb:
    hue, lightness, saturation = colorsys.rgb_to_hls(colour[0] / 255, colour[1] / 255, colour[2] / 255)
    hue = (hue + rng.uniform(-spread[0], spread[0])) % 1.0
    lightness = min(0.97, max(0.08, lightness + rng.uniform(-spread[1], spread[1])))
    saturation = min(1.0, max(0.0, saturation + rng.uniform(-spread[2], spread[2])))
    red, green, blue = colorsys.hls_to_rgb(hue, lightness, saturation)
    return (255 * red, 255 * green, 255 * blue)
