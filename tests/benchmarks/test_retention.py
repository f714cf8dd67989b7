from __future__ import annotations

from tests.benchmarks.dispatch import durable_ground
from tests.benchmarks.report import Report
from tests.benchmarks.retention import QUICK, measure


def test_claims_are_measured_beside_the_cleaner_in_its_quick_form():
    report = Report()
    with durable_ground() as ground:
        measure(report, ground, QUICK)
    assert report.figures["old jobs and events left"] == 0
    assert report.figures["old jobs and events thrown away meanwhile"] > 0
    assert "milliseconds of a claim and its finish beside the cleaner" in report.baseline
