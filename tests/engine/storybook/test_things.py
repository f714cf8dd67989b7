"""Things and accessories: each shows its class, colour and pattern, and what is worn sits where it belongs."""

from __future__ import annotations

from dataclasses import replace
from random import Random

import numpy as np
import pytest

from workers.engine.storybook.identity import ACCESSORIES, CLASSES, COLOUR_NAMES, KINDS, Identity, sample_identity
from workers.engine.storybook.palette import accent, luminance, shade
from workers.engine.storybook.render import Pixels, render, render_mask, render_picture
from workers.engine.storybook.sampling import sample_scene
from workers.engine.storybook.world import FRONT, Instance, Placement

SCENE = sample_scene(Random(1), "plain")
MIDDLE = Placement(32, 58, 21)


def standing(identity: Identity, worn: Identity | None = None, *, flip: bool = False) -> Instance:
    return Instance(identity, worn, pose=FRONT, flip=flip, tilt=0.0)


def picture(identity: Identity, worn: Identity | None = None, place: Placement = MIDDLE) -> Pixels:
    return render_picture(SCENE, [standing(identity, worn)], [place])


def changed(one: Pixels, other: Pixels) -> np.ndarray:
    """Where two pictures visibly differ: (64, 64)."""
    seen: np.ndarray = np.abs(one.astype(int) - other).max(2) > 30
    return seen


def centre(pixels: np.ndarray) -> float:
    """The mean row of the pixels that are set."""
    return float(np.nonzero(pixels)[0].mean())


@pytest.mark.parametrize("colour", COLOUR_NAMES)
@pytest.mark.parametrize("kind", KINDS)
def test_its_named_colour_is_seen_on_every_kind(kind: str, colour: str):
    for seed in range(4):
        identity = sample_identity(Random(seed), cls=kind, colour=colour, pattern="plain")
        pixels, mask = render(SCENE, [standing(identity)], [MIDDLE])
        near = np.abs(pixels.astype(int) - np.array(identity.shade)).max(2) < 12
        assert (near & (mask == 255)).sum() >= 25


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "sunglasses"])
def test_a_pattern_covers_enough_of_every_kind_to_be_read(kind: str):
    for seed in range(8):
        plain, striped, spotted = (
            picture(sample_identity(Random(seed), cls=kind, pattern=pattern))
            for pattern in ("plain", "striped", "spotted")
        )
        assert changed(plain, striped).sum() >= 25
        assert changed(plain, spotted).sum() >= 25
        assert changed(striped, spotted).sum() >= 25


@pytest.mark.parametrize("colour", COLOUR_NAMES)
def test_an_accent_differs_in_brightness_from_any_shade_it_stands_beside(colour: str):
    rng = Random(0)
    for _ in range(200):
        beside = shade(rng, colour)
        assert abs(luminance(accent(rng, beside=beside)) - luminance(beside)) > 30


@pytest.mark.parametrize("kind", ACCESSORIES)
def test_an_accessory_alone_fills_its_place(kind: str):
    for seed in range(8):
        mask = render_mask(SCENE, [standing(sample_identity(Random(seed), cls=kind))], [MIDDLE]) > 127
        columns = np.nonzero(mask.any(0))[0]
        assert columns[-1] - columns[0] >= MIDDLE.half
        assert abs(columns.mean() - MIDDLE.x) < 0.25 * MIDDLE.half


@pytest.mark.parametrize("cls", CLASSES)
def test_a_hat_sits_on_top_and_the_others_below_it(cls: str):
    identity = sample_identity(Random(5), cls=cls, colour="white")
    bare = picture(identity)
    rows = {
        kind: centre(changed(bare, picture(identity, sample_identity(Random(6), cls=kind, colour="red"))))
        for kind in ACCESSORIES
    }
    assert rows["hat"] < min(rows["sunglasses"], rows["scarf"])


@pytest.mark.parametrize("cls", CLASSES)
def test_sunglasses_lie_on_the_thing_itself(cls: str):
    identity = sample_identity(Random(5), cls=cls, colour="white")
    worn = sample_identity(Random(6), cls="sunglasses", colour="red")
    body = render_mask(SCENE, [standing(identity)], [MIDDLE]) > 127
    on = changed(picture(identity), picture(identity, worn))
    assert (on & body).sum() > 0.7 * on.sum()


@pytest.mark.parametrize("cls", CLASSES)
@pytest.mark.parametrize("kind", ACCESSORIES)
def test_a_black_accessory_is_seen_on_a_black_thing(cls: str, kind: str):
    for seed in range(4):
        identity = sample_identity(Random(seed), cls=cls, colour="black")
        worn = sample_identity(Random(seed + 50), cls=kind, colour="black")
        assert changed(picture(identity), picture(identity, worn)).sum() >= 40


@pytest.mark.parametrize("kind", ACCESSORIES)
def test_two_individuals_of_an_accessory_look_different_when_worn(kind: str):
    wearer = sample_identity(Random(1), cls="cat", colour="white")
    accessory = sample_identity(Random(2), cls=kind, colour="red", pattern="plain")
    low, high = (replace(accessory, shape=(value,) * 8) for value in (0.1, 0.9))
    assert changed(picture(wearer, low), picture(wearer, high)).sum() >= 30


def test_what_stands_beside_a_thing_does_not_change_how_it_is_drawn():
    hat, cat = (sample_identity(Random(k), cls=cls) for k, cls in enumerate(("hat", "cat")))
    left, right = Placement(16, 58, 14), Placement(48, 58, 14)
    both = render_mask(SCENE, [standing(hat), standing(cat)], [left, right])
    alone = render_mask(SCENE, [standing(cat)], [right])
    assert np.array_equal(both[:, 34:], alone[:, 34:])


@pytest.mark.parametrize("kind", KINDS)
def test_a_flipped_thing_is_its_mirror_image(kind: str):
    identity = sample_identity(Random(3), cls=kind)
    there, back = (render_mask(SCENE, [standing(identity, flip=flip)], [MIDDLE]).astype(int) for flip in (False, True))
    assert np.abs(there - back[:, ::-1]).mean() < 1.0
