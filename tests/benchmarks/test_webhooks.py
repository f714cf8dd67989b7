from __future__ import annotations

from tests.benchmarks.dispatch import durable_ground
from tests.benchmarks.report import Report
from tests.benchmarks.webhooks import QUICK, measure


def test_delays_beside_dead_endpoints_are_measured_in_their_quick_form():
    report = Report()
    with durable_ground() as ground:
        measure(report, ground, QUICK)
    assert all(value > 0 for value in report.figures.values()), report.figures
    assert [target.figure for target in report.targets] == [
        "p99 over that beside none, dead: one that hangs",
        "p99 over that beside none, dead: one that drips",
    ]
