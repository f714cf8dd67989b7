"""The serving benchmark's short form: every figure is there, whatever it is."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from tests.benchmarks.serving import __main__ as serving
from tests.benchmarks.serving.rivals import LoraPipeline

STUDENT = Path(__file__).parents[2] / "models" / "storybook-student"


@pytest.fixture(scope="module")
def document(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, float]]:
    path = tmp_path_factory.mktemp("serving") / "serving.json"
    serving.main(["--quick", "--json", str(path)])
    found: dict[str, dict[str, float]] = json.loads(path.read_text())
    return found


def test_every_promise_has_its_target(document):
    aimed_at = {target["figure"]: (target["op"], target["target"]) for target in document["targets"]}
    assert aimed_at == {
        "throughput with concepts, warm": (">=", 0.95),
        "throughput with concepts, cold": (">=", 0.95),
        "milliseconds from accepted to finished beside the engine's": ("<=", 60.0),
        "throughput of the service over the bare engine": (">=", 0.85),
        "memory at the end over memory when settled": ("<=", 1.05),
    }


def test_every_part_of_the_way_is_told(document):
    figures = document["figures"]
    parts = ("accept", "doorbell and claim", "fetch", "condition", "sample", "decode", "encode", "store", "notify")
    assert all(figures[f"milliseconds: {part}"] > 0 for part in parts)
    assert sum(name.startswith("times slower") for name in figures) == 3


def test_adapters_of_others_draw_what_they_are_and_not_the_same(tmp_path):
    pipeline = LoraPipeline.open(STUDENT, tmp_path, 2)
    drawn = [pipeline.draw_loading(), pipeline.draw_switching(), pipeline.draw_together()]
    assert [len(pictures) for pictures in drawn] == [2, 2, 2]
    loaded, switched = ([np.asarray(picture).astype(int) for picture in pictures] for pictures in drawn[:2])
    for one, other in zip(loaded, switched, strict=True):
        assert np.abs(one - other).max() <= 1
    assert np.abs(loaded[0] - loaded[1]).max() > 1
