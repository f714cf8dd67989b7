"""A short form of `python -m tests.chaos.run`: some faults of every sort under load, and nothing lost or doubled."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.chaos.run import endure

FAULTS = 8


@pytest.mark.timeout(600)  # a busy machine takes its time to start engines again
def test_faults_under_load_lose_nothing_and_double_nothing(tiny_model: Path, tmp_path: Path):
    outcome = endure(8, tiny_model, seconds=2 * FAULTS, every=2, afterwards=3, keep=tmp_path / "logs")
    assert len(outcome.done) + len(outcome.missed) == FAULTS
    assert len(outcome.done) >= FAULTS / 2  # some need rights that not everybody has
    assert len(outcome.accepted) > 10
    assert {name: ids for name, ids in outcome.wrong.items() if ids} == {}
