"""A short form of `python -m tests.chaos.streams`, and that it would notice."""

from __future__ import annotations

from collections import Counter

import pytest

from tests.chaos import streams
from tests.chaos.streams import Outcome
from tests.stack import TestServers


def test_no_event_is_missed_or_doubled_over_broken_connections(
    servers: TestServers, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(streams, "_REPLACE_EVERY", 60)
    outcome = streams.cut(servers.new_settings(), reconnects=120, seed=7)
    assert (outcome.missed, outcome.doubled, outcome.misplaced) == (0, 0, 0)
    assert outcome.breaks.total() >= 120
    assert outcome.replaced >= 1
    assert outcome.events > outcome.jobs >= 12


@pytest.mark.parametrize(
    ("heard", "found"),
    [
        (["1", "2", "3"], (0, 0, 0)),
        (["1", "3"], (1, 0, 1)),
        (["1", "2", "2", "3"], (0, 1, 0)),
        (["2", "1", "3"], (0, 0, 1)),
    ],
)
def test_what_was_heard_wrongly_is_counted(heard: list[str], found: tuple[int, int, int]) -> None:
    outcome = Outcome(Counter(), replaced=0)
    outcome.add(heard, ["1", "2", "3"])
    assert (outcome.missed, outcome.doubled, outcome.misplaced) == found
