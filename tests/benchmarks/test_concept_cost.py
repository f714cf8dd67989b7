"""The benchmark of what concepts cost, in its short form."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.benchmarks.concept_cost import main
from tests.engine.full_size import SD15, SDXL
from workers.engine.perfusion.concept import KeyLock


def test_the_short_form_counts_true_bytes_and_times_toys(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    main(["--quick", "--rounds", "1", "--json", str(tmp_path / "cost.json")])
    document = json.loads((tmp_path / "cost.json").read_text())
    figures, baseline = document["figures"], document["baseline"]
    for name, family in (("SD 1.5", SD15), ("SDXL", SDXL)):
        for lock in KeyLock:
            size = family.make_file(lock).save(tmp_path / "concept")
            assert figures[f"{name}: bytes of a file, {lock} keys"] == size
        assert {f"{name}: seconds to edit a prompt, {count} concepts" for count in (0, 1, 3)} <= baseline.keys()
        share = f"{name}: edit's share of a training step"
        assert 0 < baseline[share] < 1
        assert 0 < figures[share] < 1
    assert all(target["met"] for target in document["targets"])
    assert len(document["targets"]) == len(KeyLock)
    assert "plain projection" in capsys.readouterr().out
