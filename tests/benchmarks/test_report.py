"""The form that every benchmark reports in."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.benchmarks.report import Report, Target, argument_parser, print_table


def measured() -> Report:
    report = Report()
    report.add("class", 0.93, baseline=0.12)
    report.add("seconds", 2.75)
    report.expect("class", ">=", 0.9)
    report.expect("seconds", "<=", 2.5)
    return report


def test_the_document_holds_figures_baseline_and_targets(tmp_path: Path):
    measured().finish(tmp_path / "new" / "report.json")
    assert json.loads((tmp_path / "new" / "report.json").read_text()) == {
        "figures": {"class": 0.93, "seconds": 2.75},
        "baseline": {"class": 0.12},
        "targets": [
            {"figure": "class", "op": ">=", "target": 0.9, "value": 0.93, "met": True},
            {"figure": "seconds", "op": "<=", "target": 2.5, "value": 2.75, "met": False},
        ],
    }


def test_every_target_is_printed_met_or_not(capsys: pytest.CaptureFixture[str]):
    measured().finish(None)
    assert capsys.readouterr().out.splitlines()[-2:] == [
        "  met     class >= 0.9: 0.93",
        "  MISSED  seconds <= 2.5: 2.75",
    ]


def test_a_value_on_the_target_meets_it():
    assert Target("class", ">=", 0.9, 0.9).met
    assert Target("seconds", "<=", 2.5, 2.5).met


def test_a_figure_that_is_not_a_number_meets_no_target():
    assert not Target("class", ">=", 0.9, float("nan")).met
    assert not Target("seconds", "<=", 2.5, float("nan")).met


def test_a_target_needs_its_figure():
    with pytest.raises(KeyError):
        Report().expect("class", ">=", 0.9)


def test_no_figure_is_measured_twice():
    report = measured()
    with pytest.raises(ValueError, match="class"):
        report.add("class", 0.5)


def test_a_table_is_aligned_and_rounds_fractions(capsys: pytest.CaptureFixture[str]):
    print_table("Scores", ("attribute", "right", "N"), [("class", 0.98765, 500), ("scene", 1.0, 16)])
    assert capsys.readouterr().out.splitlines() == [
        "",
        "Scores",
        "  attribute  right    N",
        "  ---------  -----  ---",
        "  class      0.988  500",
        "  scene      1.000   16",
    ]


def test_every_benchmark_takes_json_and_quick():
    given = argument_parser("base_model", None).parse_args(["--quick", "--json", "out.json"])
    assert given.quick
    assert given.json == Path("out.json")
