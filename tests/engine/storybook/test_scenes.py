"""Scenes and styles: every place fills its picture and looks like no other, in each of the styles it is shown in."""

from __future__ import annotations

from dataclasses import replace
from random import Random

import numpy as np
import pytest
import skia

from workers.engine.storybook.canvas import Pen
from workers.engine.storybook.identity import COLOUR_NAMES, sample_identity
from workers.engine.storybook.palette import COLOURS, INK, luminance
from workers.engine.storybook.render import render, render_mask, render_picture
from workers.engine.storybook.sampling import sample_instance, sample_scene
from workers.engine.storybook.scenes import draw_backdrop
from workers.engine.storybook.styles import OUTLINE, PAPER, bend, finish, ink, tone
from workers.engine.storybook.world import NIGHT_SCENES, SCENES, SIZE, STYLES, Placement

MIDDLE = Placement(32, 58, 21)
LIGHTS = [(style, False) for style in STYLES] + [("cartoon", True)]


def backdrop(place: str, style: str = "cartoon", night: bool = False, seed: int = 1) -> np.ndarray:
    return render_picture(sample_scene(Random(seed), place, style=style, night=night), [], []).astype(int)


def saturation(pixels: np.ndarray) -> float:
    return float((pixels.max(2) - pixels.min(2)).mean())


def summary(pixels: np.ndarray) -> np.ndarray:
    """Mean colours of the 8 x 8 tiles at the picture's rim, which no thing covers: (448,)."""
    tiles = pixels.reshape(8, 8, 8, 8, 3).mean((1, 3))  # (8, 8, 3)
    return np.concatenate([tiles[:3].ravel(), tiles[3:, :2].ravel(), tiles[3:, -2:].ravel()])


@pytest.mark.parametrize("place", SCENES)
@pytest.mark.parametrize("style", STYLES)
def test_a_backdrop_follows_from_its_scene_alone(place: str, style: str):
    assert np.array_equal(backdrop(place, style), backdrop(place, style))
    assert not np.array_equal(backdrop(place, style), backdrop(place, style, seed=2))


@pytest.mark.parametrize("place", SCENES)
def test_every_place_paints_every_pixel(place: str):
    scene = sample_scene(Random(3), place)
    buffer = np.zeros((SIZE, SIZE, 4), np.uint8)
    draw_backdrop(Pen(skia.Surface(buffer).getCanvas(), lambda c: c, lambda c: c, 0.6), scene, Random(0))
    assert buffer[..., 3].min() >= 250  # where two smoothed edges meet, a trace stays clear


def test_an_unknown_place_is_an_error():
    with pytest.raises(KeyError, match="attic"):
        backdrop("attic")


@pytest.mark.parametrize(("style", "night"), LIGHTS)
def test_a_place_is_told_from_the_others_by_its_rim(style: str, night: bool):
    places = NIGHT_SCENES if night else SCENES[1:]  # a plain backdrop is known by what it lacks
    known = {place: [summary(backdrop(place, style, night, seed)) for seed in range(60)] for place in places}
    right = []
    for place in places:
        for seed in range(100, 115):
            asked = summary(backdrop(place, style, night, seed))
            right.append(min(places, key=lambda p: min(np.abs(asked - one).mean() for one in known[p])) == place)
    assert np.mean(right) >= 0.9


@pytest.mark.parametrize("place", NIGHT_SCENES)
def test_night_is_darker_than_day(place: str):
    assert backdrop(place, night=True).mean() < 0.6 * backdrop(place).mean()


@pytest.mark.parametrize("colour", COLOUR_NAMES)
def test_things_keep_their_colour_at_night(colour: str):
    identity = sample_identity(Random(1), cls="mug", colour=colour, pattern="plain")
    scene = sample_scene(Random(2), "forest", night=True)
    pixels, mask = render(scene, [sample_instance(Random(3), identity)], [MIDDLE])
    seen = np.median(pixels[mask == 255], axis=0) / np.array([0.88, 0.90, 0.98])
    assert np.abs(seen - identity.shade).max() < 20


@pytest.mark.parametrize("place", ["room", "space"])
def test_room_and_space_have_a_light_of_their_own(place: str):
    by_night, by_day = backdrop(place, night=True), backdrop(place)
    assert by_night.mean() > 0.85 * by_day.mean()


def test_a_room_is_bright_and_space_is_dark():
    assert backdrop("room").mean() > 160
    assert backdrop("space")[:16].mean() < 70


def test_a_sketch_is_pale_and_grey():
    for place in SCENES:
        pixels = backdrop(place, "sketch")
        assert saturation(pixels) < 12
        assert pixels.mean() > 180


def test_a_watercolor_stops_short_of_the_papers_edge():
    for seed in range(8):
        pixels = backdrop("space", "watercolor", seed=seed)
        rim = np.concatenate([pixels[0], pixels[-1], pixels[:, 0], pixels[:, -1]])
        assert np.abs(rim - PAPER).max() <= 6  # the paper's grain
        assert (pixels.mean(2) < 200)[8:56, 8:56].mean() > 0.95


def test_a_watercolor_is_washed_but_no_sketch():
    for place in ("beach", "forest", "room"):
        colourful = {style: saturation(backdrop(place, style)) for style in STYLES}
        assert colourful["sketch"] < 0.4 * colourful["watercolor"]
        assert colourful["watercolor"] < 0.9 * colourful["cartoon"]


def test_a_watercolor_varies_in_strength_where_a_cartoon_is_flat():
    scene = replace(sample_scene(Random(1), "plain"), background="blue")
    spread = {
        style: render_picture(replace(scene, style=style), [], [])[10:40, 10:54].astype(float).std((0, 1)).mean()
        for style in ("cartoon", "watercolor")
    }
    assert spread["cartoon"] < 1
    assert spread["watercolor"] > 6


@pytest.mark.parametrize("colour", COLOUR_NAMES)
def test_a_watercolor_keeps_the_named_colour_of_a_thing(colour: str):
    named = PAPER + 0.82 * (np.array(list(COLOURS.values())) - PAPER)  # (8, 3), as a wash of middle strength shows them
    kept = []
    for seed in range(12):
        identity = sample_identity(Random(seed), cls="mug", colour=colour, pattern="plain")
        scene = sample_scene(Random(seed), "plain", style="watercolor", avoid=(colour,))
        pixels, mask = render(scene, [sample_instance(Random(seed), identity)], [MIDDLE])
        seen = np.median(pixels[mask == 255], axis=0)
        kept.append(COLOUR_NAMES[np.abs(named - seen).sum(1).argmin()] == colour)
    assert np.mean(kept) >= 0.9


def test_the_mask_of_a_watercolor_bends_with_its_picture():
    scene = sample_scene(Random(4), "plain", style="watercolor")
    instance = sample_instance(Random(5), sample_identity(Random(6), cls="chair", colour="red", pattern="plain"))
    assert np.array_equal(render_mask(scene, [instance], [MIDDLE]), render(scene, [instance], [MIDDLE])[1])
    flat = render_mask(replace(scene, style="cartoon"), [instance], [MIDDLE])
    bent = bend(flat.astype(np.float32), "watercolor", scene.seed)
    drawn = render_mask(scene, [instance], [MIDDLE])
    assert np.abs(bent - drawn).mean() < 0.2 * np.abs(flat.astype(int) - drawn).mean() + 3  # outlines differ in width


def test_bending_moves_pixels_a_little_and_invents_none():
    rows = np.repeat(np.arange(SIZE, dtype=np.float32)[:, None], SIZE, axis=1)
    for seed in range(16):
        bent = bend(rows, "watercolor", seed)
        assert np.abs(bent - rows).mean() > 0.3
        assert np.abs(bent - rows).max() <= 2
        assert bend(rows, "cartoon", seed) is rows


def test_finishing_stays_within_a_picture_and_leaves_its_input_alone():
    for style in STYLES:
        for level in (0.0, 255.0):
            pixels = np.full((SIZE, SIZE, 3), level, np.float32)
            finished = finish(pixels, style, False, Random(0))
            assert finished.dtype == np.uint8
            assert abs(float(np.median(finished)) - level) < 110
            assert (pixels == level).all()


def test_outlines_are_heavy_in_a_cartoon_and_light_in_a_watercolor():
    red = COLOURS["red"]
    assert luminance(INK) < luminance(ink("cartoon", red)) < luminance(ink("watercolor", red)) < luminance(red)
    assert OUTLINE["watercolor"] < OUTLINE["cartoon"]
    assert set(OUTLINE) == set(STYLES)


def test_a_dark_shape_gets_a_light_outline():
    for style in ("cartoon", "watercolor"):
        assert luminance(ink(style, COLOURS["black"])) > luminance(COLOURS["black"]) + 30


def test_only_a_sketch_changes_what_colours_are_painted_with():
    red = COLOURS["red"]
    assert tone("cartoon", red) == tone("watercolor", red) == red
    assert max(tone("sketch", red)) - min(tone("sketch", red)) < 10
