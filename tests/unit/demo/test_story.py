from __future__ import annotations

from infra.demo.story import SCENES, TAKES, cast
from workers.engine.storybook.captions import fullest_caption


def test_words_cannot_tell_the_creature_from_its_lookalikes():
    creature = cast(0)
    assert {fullest_caption(other) for other in creature.lookalikes(9)} == {creature.caption} == {"a spotted blue cat"}


def test_every_lookalike_is_somebody_else():
    creature = cast(0)
    everybody = [creature.identity, *creature.lookalikes(9)]
    assert len({(each.shade, each.second, each.shape) for each in everybody}) == 10


def test_another_number_is_another_creature():
    assert cast(0) == cast(0) != cast(1)


def test_enough_pictures_are_judged():
    assert sum(scene.is_judged for scene in SCENES) * TAKES >= 24


def test_every_scene_names_the_creature():
    assert all("{it}" in scene.prompt for scene in SCENES)
