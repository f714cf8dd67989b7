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

from workers.engine.storybook.accessories import draw_accessory
from workers.engine.storybook.anatomy import Anchors
from workers.engine.storybook.animals import draw_bird, draw_fish, draw_quadruped
from workers.engine.storybook.canvas import Pen
from workers.engine.storybook.identity import Identity
from workers.engine.storybook.objects import draw_boat, draw_car, draw_house, draw_robot, draw_teapot
from workers.engine.storybook.scenes import draw_backdrop
from workers.engine.storybook.styles import finish, ink, tone
from workers.engine.storybook.world import SIZE, Instance, Placement, Scene

Pixels = NDArray[np.uint8]

_SCALE: Final = 2
_SIDE: Final = SIZE * _SCALE
_OUTLINE: Final = {"cartoon": 1.1, "sketch": 0.95}
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
}


def render_picture(scene: Scene, instances: Sequence[Instance], layout: Sequence[Placement]) -> Pixels:
    """Render the picture: (64, 64, 3)."""
    return render(scene, instances, layout)[0]


def render_mask(scene: Scene, instances: Sequence[Instance], layout: Sequence[Placement]) -> Pixels:
    """Render how much of each pixel things and their accessories cover: (64, 64), 0 to 255."""
    _, canvas, layer = _canvas()
    _draw_things(canvas, scene, instances, layout)
    return _shrink(layer[..., 3]).astype(np.uint8)


def render(scene: Scene, instances: Sequence[Instance], layout: Sequence[Placement]) -> tuple[Pixels, Pixels]:
    """Render picture (64, 64, 3) and mask (64, 64) in one pass."""
    rng = Random(scene.seed)
    surface, canvas, layer = _canvas()
    _draw_things(canvas, scene, instances, layout)
    mask = _shrink(layer[..., 3]).astype(np.uint8)
    _, backdrop, buffer = _canvas()
    _draw_backdrop(backdrop, scene, rng, layout)
    backdrop.resetMatrix()
    surface.draw(backdrop, 0, 0, None)
    return finish(_shrink(buffer[..., 2::-1]), scene.style, scene.night, rng), mask


def _canvas() -> tuple[Any, Any, Pixels]:
    """Return a cleared surface, its canvas in picture units, and its pixels as (128, 128, 4) in BGRA order."""
    buffer = np.zeros((_SIDE, _SIDE, 4), np.uint8)
    surface = skia.Surface(buffer, skia.kBGRA_8888_ColorType)
    canvas = surface.getCanvas()
    canvas.scale(_SCALE, _SCALE)
    return surface, canvas, buffer


def _pen(canvas: Any, style: str, line_width: float) -> Pen:
    return Pen(canvas, partial(tone, style), partial(ink, style), line_width)


def _draw_backdrop(canvas: Any, scene: Scene, rng: Random, layout: Sequence[Placement]) -> None:
    canvas.clear(skia.ColorWHITE)
    draw_backdrop(_pen(canvas, scene.style, 0.6), scene, rng)
    if scene.style == "sketch":
        canvas.drawRect(skia.Rect(0, 0, SIZE, SIZE), skia.Paint(Color=_PAPER_VEIL))
    shadow = skia.Paint(AntiAlias=True, Color=_SHADOW)
    for place in layout:
        half = place.half
        ground = place.ground
        canvas.drawOval(
            skia.Rect(place.x - 0.7 * half, ground - 0.1 * half, place.x + 0.7 * half, ground + 0.08 * half), shadow
        )


def _draw_things(canvas: Any, scene: Scene, instances: Sequence[Instance], layout: Sequence[Placement]) -> None:
    if len(instances) != len(layout):
        raise ValueError(f"{len(instances)} instances, but {len(layout)} placements")
    pen = _pen(canvas, scene.style, 1.0)
    for instance, place in zip(instances, layout, strict=True):
        canvas.save()
        canvas.translate(place.x, place.ground - place.half)
        canvas.scale(-place.half if instance.flip else place.half, place.half)
        canvas.rotate(math.degrees(instance.tilt))
        pen.line_width = _OUTLINE[scene.style] / place.half
        anchors = _draw(pen, instance)
        draw_accessory(pen, anchors, instance.accessory, instance.accessory_colour)
        canvas.restore()


def _draw(pen: Pen, instance: Instance) -> Anchors:
    identity = instance.identity
    if identity.cls in _POSED:
        return _POSED[identity.cls](pen, identity, instance.pose)
    return _STILL[identity.cls](pen, identity)


def _shrink(pixels: Pixels) -> NDArray[np.float32]:
    """Average 2 x 2 blocks."""
    a = pixels.astype(np.float32)
    mean: NDArray[np.float32] = (a[0::2, 0::2] + a[1::2, 0::2] + a[0::2, 1::2] + a[1::2, 1::2]) * 0.25
    return mean
