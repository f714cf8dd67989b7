from __future__ import annotations

from tests.benchmarks.dispatch import durable_ground
from tests.benchmarks.pages import QUICK, measure
from tests.benchmarks.report import Report


def test_every_page_of_operators_is_measured_in_its_quick_form():
    report = Report()
    with durable_ground() as ground:
        measure(report, ground, QUICK, rounds=1)
    assert len(report.figures) == len(report.baseline) == len(report.targets) == 13
    assert all(value > 0 for value in report.figures.values())
