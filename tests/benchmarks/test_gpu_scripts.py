"""The scripts for a GPU, tried out on the CPU: they stop in time and go on where they stopped."""

from __future__ import annotations

import json
import time
from pathlib import Path

from tests.benchmarks.gpu import serving
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


def test_serving_measures_what_there_is_time_for_and_goes_on_from_there(tmp_path: Path):
    arguments = ["--device", "cpu", "--quick", "--out"]
    serving.main([*arguments, str(tmp_path / "first"), "--minutes", "0"])
    first = json.loads((tmp_path / "first" / "serving.json").read_text())
    assert first["seconds"] == first["figures"] == {}
    serving.main([*arguments, str(tmp_path / "second"), "--state", str(tmp_path / "first")])
    second = json.loads((tmp_path / "second" / "serving.json").read_text())
    for decoder in ("tiny", "full"):
        assert second["figures"][f"times faster than 50 steps: {decoder} decoder, compiled"] > 0
    assert second["figures"]["throughput with concepts: full decoder, compiled, batch 1"] > 0
    serving.main([*arguments, str(tmp_path / "third"), "--state", str(tmp_path / "second"), "--minutes", "0"])
    assert json.loads((tmp_path / "third" / "serving.json").read_text())["seconds"] == second["seconds"]
