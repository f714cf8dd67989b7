"""A short form of `python -m tests.fuzz.pictures`."""

from __future__ import annotations

import random

import pytest

from tests.fuzz.pictures import DAMAGES, bomb, fuzz
from tests.stack import TestServers


def test_damaged_pictures_are_kept_or_refused_in_bounded_memory(servers: TestServers) -> None:
    outcome = fuzz(servers.new_settings(), count=250, seed=5)
    assert outcome.wrong == []
    assert outcome.answers.total() == 250
    assert {answer for _, answer in outcome.answers} == {"kept", "picture-unreadable", "picture-too-large"}
    assert 0 < outcome.decoders_peak < 512 * 1024**2


@pytest.mark.parametrize("damage", [damage for damage, _ in DAMAGES])
def test_a_seed_means_the_same_damage(damage) -> None:
    assert damage(random.Random(3)) == damage(random.Random(3))


def test_a_bomb_is_small() -> None:
    assert max(len(bomb(random.Random(seed))) for seed in range(8)) < 100_000
