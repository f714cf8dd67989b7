"""Drawing primitives: paths, and a pen that outlines, patterns and tones what it fills."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

import skia

from workers.engine.storybook.palette import Rgb

Point = tuple[float, float]
Path = Any
"""A `skia.Path`; the binding ships no usable type information."""

_STRIPE_GAP, _STRIPE_WIDTH = 0.28, 0.12
_SPOT_RADIUS, _SPOT_GAP = 0.1, (0.42, 0.28)


def ellipse(x: float, y: float, rx: float, ry: float) -> Path:
    """An ellipse around (x, y)."""
    path = skia.Path()
    path.addOval(skia.Rect(x - rx, y - ry, x + rx, y + ry))
    return path


def polygon(*points: Point) -> Path:
    """A closed polygon."""
    path = skia.Path()
    path.addPoly([skia.Point(*point) for point in points], True)
    return path


def box(left: float, top: float, right: float, bottom: float, radius: float = 0.0) -> Path:
    """A rectangle with round corners."""
    path = skia.Path()
    path.addRoundRect(skia.Rect(left, top, right, bottom), radius, radius)
    return path


def curve(*points: Point) -> Path:
    """An open line (2 points), quadratic (3) or cubic (4) curve."""
    path = skia.Path()
    path.moveTo(*points[0])
    if len(points) == 4:
        path.cubicTo(*points[1], *points[2], *points[3])
    elif len(points) == 3:
        path.quadTo(*points[1], *points[2])
    else:
        path.lineTo(*points[1])
    return path


def pack(colour: Rgb) -> int:
    """Return the colour as skia's 32-bit integer."""
    red, green, blue = (min(255, max(0, int(channel))) for channel in colour)
    return 0xFF000000 | red << 16 | green << 8 | blue


@dataclass(frozen=True)
class Coat:
    """A pattern laid over a filled shape in a second colour, shifted by the identity's phase."""

    pattern: str
    colour: Rgb
    phase: float


class Pen:
    """Draws toned, outlined shapes on one canvas; paints are made once and reused, which halves the time."""

    def __init__(self, canvas: Any, tone: Callable[[Rgb], Rgb], ink: Callable[[Rgb], Rgb], line_width: float):
        self.canvas: Final = canvas
        self.line_width = line_width
        self._tone: Final = tone
        self._ink: Final = ink
        self._fill = skia.Paint(AntiAlias=True)
        self._stroke = skia.Paint(
            AntiAlias=True,
            Style=skia.Paint.kStroke_Style,
            StrokeCap=skia.Paint.kRound_Cap,
            StrokeJoin=skia.Paint.kRound_Join,
        )

    def fill(
        self,
        path: Path,
        colour: Rgb,
        *,
        outline: bool = True,
        coat: Coat | None = None,
        line_width: float | None = None,
    ) -> None:
        """Fill a path, lay the coat over it and outline it."""
        self._fill.setColor(pack(self._tone(colour)))
        self.canvas.drawPath(path, self._fill)
        if coat is not None and coat.pattern != "plain":
            self._lay(path, coat)
        if outline:
            self._line(path, pack(self._ink(colour)), line_width or self.line_width)

    def stroke(self, path: Path, colour: Rgb, width: float) -> None:
        """Draw a thick outlined line, such as a tail or an arm."""
        self._line(path, pack(self._ink(colour)), width + self.line_width * 1.6)
        self.line(path, colour, width)

    def line(self, path: Path, colour: Rgb, width: float) -> None:
        """Draw a line without an outline."""
        self._line(path, pack(self._tone(colour)), width)

    def dot(self, x: float, y: float, radius: float, colour: Rgb) -> None:
        """Draw a disc without an outline."""
        self._fill.setColor(pack(self._tone(colour)))
        self.canvas.drawCircle(x, y, radius, self._fill)

    def rectangle(self, left: float, top: float, right: float, bottom: float, colour: Rgb) -> None:
        """Draw a rectangle without an outline."""
        self._fill.setColor(pack(self._tone(colour)))
        self.canvas.drawRect(skia.Rect(left, top, right, bottom), self._fill)

    def gradient(self, top: float, bottom: float, width: float, upper: Rgb, lower: Rgb) -> None:
        """Fill a full-width band with a vertical gradient."""
        colours = [pack(self._tone(upper)), pack(self._tone(lower))]
        shader = skia.GradientShader.MakeLinear([skia.Point(0, top), skia.Point(0, bottom)], colours)
        self.canvas.drawRect(skia.Rect(0, top, width, bottom), skia.Paint(Shader=shader))

    def _line(self, path: Path, colour: int, width: float) -> None:
        self._stroke.setColor(colour)
        self._stroke.setStrokeWidth(width)
        self.canvas.drawPath(path, self._stroke)

    def _lay(self, path: Path, coat: Coat) -> None:
        self.canvas.save()
        self.canvas.clipPath(path, True)
        bounds = path.getBounds()
        if coat.pattern == "striped":
            self.line(_stripes(bounds, coat.phase), coat.colour, _STRIPE_WIDTH)
        else:
            self._fill.setColor(pack(self._tone(coat.colour)))
            self.canvas.drawPath(_spots(bounds, coat.phase), self._fill)
        self.canvas.restore()


def _stripes(bounds: Any, phase: float) -> Path:
    path = skia.Path()
    slant = math.sin(phase * 7) * 0.25
    x = bounds.left() - 0.6 + phase * _STRIPE_GAP
    while x < bounds.right() + 0.6:
        path.moveTo(x, bounds.top() - 0.1)
        path.lineTo(x + slant, bounds.bottom() + 0.1)
        x += _STRIPE_GAP
    return path


def _spots(bounds: Any, phase: float) -> Path:
    path = skia.Path()
    row, y = 0, -1.2 + phase * 0.2
    while y < bounds.bottom() + _SPOT_RADIUS:
        x = -1.4 + (row % 2) * _SPOT_GAP[0] / 2 + (phase * 3 % 1) * 0.3
        while x < bounds.right() + _SPOT_RADIUS:
            if x > bounds.left() - _SPOT_RADIUS and y > bounds.top() - _SPOT_RADIUS:
                path.addCircle(x, y, _SPOT_RADIUS)
            x += _SPOT_GAP[0]
        y += _SPOT_GAP[1]
        row += 1
    return path
