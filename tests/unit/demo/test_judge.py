from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from infra.demo.judge import Lineup
from infra.demo.story import cast
from workers.engine.storybook.identity import Identity
from workers.engine.storybook.portrait import portraits


@pytest.fixture(scope="module")
def lineup() -> Lineup:
    return Lineup(cast(0))


def pictures_of(identity: Identity) -> list[NDArray[np.uint8]]:
    return [picture.pixels for picture in portraits(identity, 12, seed=9)]


def test_the_creature_is_known_in_pictures_that_the_judge_has_not_seen(lineup: Lineup):
    assert lineup.judge(pictures_of(cast(0).identity)).share >= 0.8


def test_a_lookalike_is_not_taken_for_the_creature(lineup: Lineup):
    strangers = [pictures_of(other)[0] for other in cast(0).lookalikes(12)]
    assert lineup.judge(strangers).share <= 0.2
