"""The benchmark of cohorts, in its short form."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.benchmarks.cohort import EQUAL, main


def test_the_short_form_reports_both_ways_and_finds_them_equal(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    main(["--quick", "--json", str(tmp_path / "cohort.json")])
    document = json.loads((tmp_path / "cohort.json").read_text())
    figures, baseline = document["figures"], document["baseline"]
    step = "seconds a step of all trainings"
    assert figures["times faster than one after the other"] == pytest.approx(baseline[step] / figures[step])
    for name in ("value_outputs", "embedding", "target_input"):
        assert figures[f"difference of {name}"] < EQUAL
    assert "side by side" in capsys.readouterr().out
