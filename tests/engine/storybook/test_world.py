"""The picture world: what is drawn follows from the composition, and captions never give an identity away."""

from __future__ import annotations

from dataclasses import replace
from random import Random

import numpy as np
import pytest

from workers.engine.storybook.captions import caption, fullest_caption
from workers.engine.storybook.identity import (
    ACCESSORIES,
    CLASSES,
    COLOUR_NAMES,
    KINDS,
    PATTERNS,
    is_unseen,
    sample_identity,
    split_rng,
)
from workers.engine.storybook.judge_pictures import lookalikes
from workers.engine.storybook.palette import COLOURS, luminance
from workers.engine.storybook.render import render, render_mask, render_picture
from workers.engine.storybook.sampling import (
    ATTRIBUTES,
    OUTDOORS,
    Mixture,
    labels,
    sample_composition,
    sample_instance,
    sample_scene,
)
from workers.engine.storybook.world import FRONT, SCENES, SIDE, SIZE, STYLES, Composition, Placement

MIDDLE = Placement(32, 58, 21)
ONE_THING = Mixture(plain=0.3, accessory=0.5, night=0.3, sketch=0.1)


def drawn(composition: Composition) -> np.ndarray:
    return render_picture(composition.scene, composition.instances, composition.layout)


def test_the_same_seed_gives_the_same_picture():
    first, second = (drawn(sample_composition(Random(7))) for _ in range(2))
    assert np.array_equal(first, second)
    assert not np.array_equal(first, drawn(sample_composition(Random(8))))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("style", STYLES)
def test_every_kind_can_be_drawn_in_every_style_and_pose(kind: str, style: str):
    rng = Random(3)
    scene = sample_scene(rng, "plain", style=style)
    instance = sample_instance(rng, sample_identity(rng, cls=kind))
    for pose in (FRONT, SIDE):
        pixels, mask = render(scene, [replace(instance, pose=pose)], [MIDDLE])
        assert pixels.shape == (SIZE, SIZE, 3)
        assert pixels.dtype == np.uint8
        assert 0.06 < mask.mean() / 255 < 0.60


@pytest.mark.parametrize("cls", CLASSES)
@pytest.mark.parametrize("kind", ACCESSORIES)
def test_an_accessory_shows_on_whoever_wears_it(cls: str, kind: str):
    scene = sample_scene(Random(1), "plain")
    instance = sample_instance(Random(2), sample_identity(Random(3), cls=cls, colour="white"))
    worn = sample_identity(Random(4), cls=kind, colour="red")
    bare, dressed = (render_picture(scene, [one], [MIDDLE]) for one in (instance, replace(instance, worn=worn)))
    changed = np.abs(dressed.astype(int) - bare).max(2) > 30
    assert 40 < changed.sum() < 900


@pytest.mark.parametrize("kind", KINDS)
def test_individuals_of_a_kind_differ_in_shape(kind: str):
    scene = sample_scene(Random(1), "plain")
    identity = sample_identity(Random(3), cls=kind, colour="red", pattern="plain")
    masks = []
    for k in range(6):
        twin = replace(identity, shape=tuple(Random(k).random() for _ in range(8)))
        masks.append(render(scene, [sample_instance(Random(0), twin)], [MIDDLE])[0].astype(int))
    differences = [np.abs(one - other).mean() for one in masks for other in masks if one is not other]
    assert np.median(differences) > 0.8


def test_an_accessory_that_stands_alone_wears_none():
    for k in range(20):
        assert sample_instance(Random(k), sample_identity(Random(k), cls="hat"), wearing=1.0).worn is None


@pytest.mark.parametrize("place", SCENES)
@pytest.mark.parametrize("night", [False, True])
def test_outside_mask_and_shadow_only_the_backdrop_is_seen(place: str, night: bool):
    rng = Random(5)
    scene = sample_scene(rng, place, night=night)
    instance = sample_instance(rng, sample_identity(rng, cls="robot"))
    pixels, mask = render(scene, [instance], [MIDDLE])
    untouched = mask == 0
    untouched[int(MIDDLE.ground - 0.2 * MIDDLE.half) :] = False  # the shadow lies there
    backdrop = render_picture(scene, [], [])
    difference = np.abs(pixels.astype(int) - backdrop).max(2)
    assert difference[untouched].max() <= 2  # a trace of an edge too faint for the mask
    assert (difference[mask == 255] > 2).mean() > 0.95


def test_the_mask_is_the_same_however_it_is_asked_for():
    composition = sample_composition(Random(11))
    scene, instances, layout = composition.scene, composition.instances, composition.layout
    assert np.array_equal(render_mask(scene, instances, layout), render(scene, instances, layout)[1])


def test_a_thing_without_a_placement_is_an_error():
    composition = sample_composition(Random(2))
    with pytest.raises(ValueError, match="placements"):
        render(composition.scene, composition.instances, [])


def test_a_sketch_has_no_colour():
    scene = sample_scene(Random(1), "plain", style="sketch")
    instance = sample_instance(Random(1), sample_identity(Random(1), colour="red"))
    pixels = render_picture(scene, [instance], [MIDDLE]).astype(int)
    assert (pixels.max(2) - pixels.min(2)).max() < 30


def test_lookalikes_share_every_word_and_still_look_different():
    faces = lookalikes("held-out", 4, 6)
    assert len({fullest_caption(face) for face in faces}) == 1
    assert len({face.second for face in faces}) == 6
    scene, instance = sample_scene(Random(0), "plain"), sample_instance(Random(0), faces[0])
    seen = [render_picture(scene, [replace(instance, identity=face)], [MIDDLE]).astype(int) for face in faces]
    for k, one in enumerate(seen):
        for other in seen[k + 1 :]:
            assert np.abs(one - other).mean() > 1.0


def test_the_second_colour_stands_out_from_the_first():
    for k in range(200):
        identity = sample_identity(Random(k))
        assert abs(luminance(identity.shade) - luminance(identity.second)) > 30


@pytest.mark.parametrize("colour", COLOUR_NAMES)
def test_a_shade_stays_nearest_to_the_colour_it_is_named_after(colour: str):
    shades = [sample_identity(Random(k), colour=colour).shade for k in range(60)]
    named = np.array(list(COLOURS.values()))  # (8, 3)
    nearest = np.abs(np.array(shades)[:, None] - named).sum(2).argmin(1)  # (60,)
    assert (nearest == COLOUR_NAMES.index(colour)).mean() >= 0.9
    assert max(map(luminance, shades)) - min(map(luminance, shades)) > 10


def test_an_identity_can_be_fixed_in_all_that_words_can_say():
    identity = sample_identity(Random(0), cls="cat", colour="orange", pattern="spotted")
    assert fullest_caption(identity) == "a spotted orange cat"
    assert fullest_caption(sample_identity(Random(0), cls="dog", colour="orange", pattern="plain")) == "an orange dog"


def test_a_full_caption_says_all_of_it():
    composition = sample_composition(Random(0), ONE_THING)
    rng = Random(1)
    identity = sample_identity(rng, cls="fish", colour="blue", pattern="striped")
    instance = replace(
        composition.instances[0], identity=identity, worn=sample_identity(rng, cls="hat", colour="red", pattern="plain")
    )
    scene = replace(composition.scene, place="snow", night=True, style="cartoon")
    said = caption(rng, scene, [instance], full=True)
    assert said.startswith("a striped blue fish wearing a red hat in the snow")
    assert said.endswith("at night")


def test_captions_never_name_what_only_a_concept_can_know():
    identity = sample_identity(Random(9), colour="red", pattern="plain")
    twin = replace(identity, second=(0.0, 0.0, 0.0), shape=(0.5,) * 8, eye=(1.0, 2.0, 3.0), phase=0.1)
    scene, instance = sample_scene(Random(0), "beach"), sample_instance(Random(0), identity)
    for seed in range(50):
        words = [caption(Random(seed), scene, [replace(instance, identity=who)]) for who in (identity, twin)]
        assert words[0] == words[1]


def test_no_two_splits_share_a_picture():
    draws = {split: split_rng(split, 5).random() for split in ("train", "judge", "held-out")}
    assert len(set(draws.values())) == 3
    with pytest.raises(ValueError, match="out of range"):
        split_rng("train", 1 << 40)


def test_sunglasses_are_a_plural_and_never_patterned():
    identity = sample_identity(Random(0), cls="sunglasses", colour="orange", pattern="striped")
    assert fullest_caption(identity) == "orange sunglasses"


def test_labels_say_only_what_the_picture_can_show():
    for seed in range(200):
        composition = sample_composition(Random(seed), OUTDOORS)
        said, count = labels(composition), len(composition.instances)
        assert all(value in ATTRIBUTES[name] for name, value in said.items())
        assert {"scene", "night", "style", "count"} <= said.keys()
        assert ("class" in said) == (count < 3)
        assert ("right class" in said) == (count == 2)
        assert not (composition.scene.style == "sketch" and {"colour", "pattern"} & said.keys())


def test_the_mixture_is_kept():
    compositions = [sample_composition(Random(k), OUTDOORS) for k in range(800)]
    for count, share in ((2, OUTDOORS.pair), (3, OUTDOORS.trio)):
        assert np.mean([len(c.instances) == count for c in compositions]) == pytest.approx(share, abs=0.04)
    assert np.mean([c.scene.place == "plain" for c in compositions]) == pytest.approx(OUTDOORS.plain, abs=0.05)
    single = [c.instances[0] for c in compositions if len(c.instances) == 1]
    assert np.mean([i.identity.cls in ACCESSORIES for i in single]) == pytest.approx(OUTDOORS.alone, abs=0.05)
    worn = [i.worn is not None for i in single if i.identity.cls in CLASSES]
    assert np.mean(worn) == pytest.approx(OUTDOORS.accessory, abs=0.06)
    assert {i.identity.pattern for i in single} == set(PATTERNS)


def test_training_keeps_one_colour_of_every_kind_to_itself():
    for kind in KINDS:
        assert sum(is_unseen(kind, colour) for colour in COLOUR_NAMES) == 1
    for unseen in (False, True):
        compositions = [sample_composition(Random(k), replace(OUTDOORS, unseen=unseen)) for k in range(400)]
        instances = [instance for c in compositions for instance in c.instances]
        shown = [i.identity for i in instances] + [i.worn for i in instances if i.worn]
        assert any(is_unseen(one.cls, one.colour) for one in shown) == unseen


def test_the_things_of_one_picture_differ_in_class_and_colour():
    three = replace(OUTDOORS, trio=1.0)
    for seed in range(50):
        things = [instance.identity for instance in sample_composition(Random(seed), three).instances]
        assert len({thing.cls for thing in things}) == len({thing.colour for thing in things}) == 3
