"""The scripts for a GPU, tried out on the CPU: they stop in time and go on where they stopped."""

from __future__ import annotations

import json
import time
from pathlib import Path

from tests.benchmarks.gpu.base_model import STAGES, Place, bring_back, run
from workers.engine.storybook import stages


def place_in(folder: Path) -> Place:
    return Place(work=folder / "work", out=folder / "out", device="cpu", workers=1, quick=True)


def test_the_base_model_script_knows_every_stage_of_the_recipe_but_the_student():
    assert [*STAGES, "student"] == list(stages.STAGES)


def test_a_call_without_time_leaves_every_stage_for_the_next(tmp_path: Path):
    assert run(place_in(tmp_path), until=time.monotonic()) == list(STAGES)


def test_a_call_runs_only_what_is_not_finished_and_brings_back_what_there_is(tmp_path: Path):
    place = place_in(tmp_path)
    place.work.mkdir()
    (place.work / "finished.json").write_text(json.dumps([stage for stage in STAGES if stage != "data"]))
    assert run(place, until=time.monotonic() + 120) == []
    assert list((place.work / "cache" / "data").glob("studio-*"))
    bring_back(place)
    assert json.loads((place.out / "machine.json").read_text())["torch"]
