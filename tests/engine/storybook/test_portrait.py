"""Portraits: a concept's training set shows one identity, plainly and in variety."""

from __future__ import annotations

from random import Random

import numpy as np

from workers.engine.storybook.identity import sample_identity
from workers.engine.storybook.portrait import portraits


def test_the_same_seed_gives_the_same_portraits():
    identity = sample_identity(Random(1), cls="cat")
    first, second = (portraits(identity, 3, seed=5) for _ in range(2))
    for one, other in zip(first, second, strict=True):
        assert np.array_equal(one.pixels, other.pixels)
        assert one.caption == other.caption


def test_portraits_show_this_identity_alone_by_day_with_nothing_on():
    identity = sample_identity(Random(2), cls="dog")
    for picture in portraits(identity, 20, seed=0):
        (instance,) = picture.composition.instances
        assert instance.identity == identity
        assert instance.worn is None
        assert not picture.composition.scene.night
        assert picture.composition.scene.style == "cartoon"
        assert "dog" in picture.caption


def test_portraits_vary_in_place_and_position():
    pictures = portraits(sample_identity(Random(3)), 20, seed=0)
    assert len({picture.composition.scene.place for picture in pictures}) >= 4
    assert len({picture.composition.layout for picture in pictures}) == 20


def test_each_portrait_carries_the_mask_of_the_thing():
    for picture in portraits(sample_identity(Random(4), cls="house"), 4, seed=1):
        assert picture.mask.shape == (64, 64)
        assert 0.1 < (picture.mask > 127).mean() < 0.6
