"""Renders a composition to 64 x 64 pixels, and the ground-truth mask of its things.

Drawn at twice the size and averaged down. Things go on a layer of their own, whose coverage is the mask.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import partial
from random import Random
from typing import Any, Final

import numpy as np
import skia
from numpy.typing import NDArray

from workers.engine.storybook.accessories import draw_alone, draw_worn
from workers.engine.storybook.anatomy import Anchors
from workers.engine.storybook.animals import draw_bird, draw_fish, draw_quadruped
from workers.engine.storybook.canvas import Pen
from workers.engine.storybook.identity import ACCESSORIES, Identity
from workers.engine.storybook.objects import (
    draw_boat,
    draw_car,
    draw_chair,
    draw_house,
    draw_mug,
    draw_robot,
    draw_teapot,
)
from workers.engine.storybook.scenes import draw_backdrop
from workers.engine.storybook.styles import OUTLINE, bend, finish, ink, tone
from workers.engine.storybook.world import SIZE, Instance, Placement, Scene

Pixels = NDArray[np.uint8]

_SCALE: Final = 2
_SIDE: Final = SIZE * _SCALE
_SHADOW: Final = skia.Color(20, 16, 40, 60)
_PAPER_VEIL: Final = skia.Color(252, 250, 244, 140)

_POSED: Final[dict[str, Callable[[Pen, Identity, int], Anchors]]] = {
    "cat": draw_quadruped,
    "dog": draw_quadruped,
    "rabbit": draw_quadruped,
    "robot": draw_robot,
}
_STILL: Final[dict[str, Callable[[Pen, Identity], Anchors]]] = {
    "bird": draw_bird,
    "fish": draw_fish,
    "teapot": draw_teapot,
    "house": draw_house,
    "car": draw_car,
    "boat": draw_boat,
    "mug": draw_mug,
    "chair": draw_chair,
}


def render_picture(scene: Scene, instances: Sequence[Instance], layout: Sequence[Placement]) -> Pixels:
    """Render the picture: (64, 64, 3)."""
    return render(scene, instances, layout)[0]


def render_mask(scene: Scene, instances: Sequence[Instance], layout: Sequence[Placement]) -> Pixels:
    """Render how much of each pixel things and their accessories cover: (64, 64), 0 to 255."""
    return _things(scene, instances, layout).mask(scene)


def render(scene: Scene, instances: Sequence[Instance], layout: Sequence[Placement]) -> tuple[Pixels, Pixels]:
    """Render picture (64, 64, 3) and mask (64, 64) in one pass."""
    rng = Random(scene.seed)
    picture, things = _Layer(), _things(scene, instances, layout)
    _draw_backdrop(picture.canvas, scene, rng, layout)
    picture.canvas.resetMatrix()
    things.surface.draw(picture.canvas, 0, 0, None)
    pixels = bend(_shrink(picture.pixels[..., 2::-1]), scene.style, scene.seed)
    return finish(pixels, scene.style, scene.night, rng), things.mask(scene)


class _Layer:
    """A clear surface whose canvas is in picture units and whose pixels (128, 128, 4) are in BGRA order."""

    def __init__(self) -> None:
        self.pixels: Pixels = np.zeros((_SIDE, _SIDE, 4), np.uint8)
        self.surface = skia.Surface(self.pixels, skia.kBGRA_8888_ColorType)
        self.canvas = self.surface.getCanvas()
        self.canvas.scale(_SCALE, _SCALE)

    def mask(self, scene: Scene) -> Pixels:
        """Return the coverage of the finished picture's pixels: (64, 64)."""
        return bend(_shrink(self.pixels[..., 3]), scene.style, scene.seed).astype(np.uint8)


def _pen(canvas: Any, style: str, line_width: float) -> Pen:
    return Pen(canvas, partial(tone, style), partial(ink, style), line_width)


def _draw_backdrop(canvas: Any, scene: Scene, rng: Random, layout: Sequence[Placement]) -> None:
    canvas.clear(skia.ColorWHITE)
    draw_backdrop(_pen(canvas, scene.style, 0.6), scene, rng)
    if scene.style == "sketch":
        canvas.drawRect(skia.Rect(0, 0, SIZE, SIZE), skia.Paint(Color=_PAPER_VEIL))
    shadow = skia.Paint(AntiAlias=True, Color=_SHADOW)
    for place in layout:
        canvas.drawOval(_shadow_box(place), shadow)


def _shadow_box(place: Placement) -> Any:
    """Return the flat box of the shadow at a thing's foot."""
    width, above, below = 0.7 * place.half, 0.1 * place.half, 0.08 * place.half
    return skia.Rect(place.x - width, place.ground - above, place.x + width, place.ground + below)


def _things(scene: Scene, instances: Sequence[Instance], layout: Sequence[Placement]) -> _Layer:
    if len(instances) != len(layout):
        raise ValueError(f"{len(instances)} instances, but {len(layout)} placements")
    layer = _Layer()
    canvas, pen = layer.canvas, _pen(layer.canvas, scene.style, 1.0)
    for instance, place in zip(instances, layout, strict=True):
        canvas.save()
        canvas.translate(place.x, place.ground - place.half)
        canvas.scale(-place.half if instance.flip else place.half, place.half)
        canvas.rotate(math.degrees(instance.tilt))
        pen.line_width = OUTLINE[scene.style] / place.half
        _draw(pen, instance)
        canvas.restore()
    return layer


def _draw(pen: Pen, instance: Instance) -> None:
    identity = instance.identity
    if identity.cls in ACCESSORIES:
        draw_alone(pen, identity)
        return
    posed = _POSED.get(identity.cls)
    anchors = posed(pen, identity, instance.pose) if posed else _STILL[identity.cls](pen, identity)
    if instance.worn is not None:
        draw_worn(pen, anchors, instance.worn)


def _shrink(pixels: Pixels) -> NDArray[np.float32]:
    """Average 2 x 2 blocks."""
    a = pixels.astype(np.float32)
    mean: NDArray[np.float32] = (a[0::2, 0::2] + a[1::2, 0::2] + a[0::2, 1::2] + a[1::2, 1::2]) * 0.25
    return mean
