from __future__ import annotations

from tests.benchmarks.dispatch import QUICK, durable_ground, measure
from tests.benchmarks.report import Report


def test_the_queue_is_measured_beside_raw_celery_in_its_quick_form():
    report = Report()
    with durable_ground() as ground:
        measure(report, ground, QUICK)
    assert all(value > 0 for value in report.figures.values()), report.figures
    beside = {
        "jobs a second in batches of 8",
        "pages per claimed job, deep",
        "milliseconds from commit to start, idle, p50",
    }
    assert beside <= report.baseline.keys()
