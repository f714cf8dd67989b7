from __future__ import annotations

from tests.benchmarks.report import Report
from tests.benchmarks.stopping import cancel_queued, measure, open_stand, preempt


def test_running_jobs_are_stopped_and_make_way_in_its_short_form():
    report = Report()
    with open_stand() as stand:
        measure(report, stand, 1, scenes=(cancel_queued, preempt))
    assert {figure.removesuffix(", longest").removeprefix("seconds until ") for figure in report.figures} >= {
        "a queued job is canceled",
        "a burst's first picture is begun",
        "a training that made way has done a step more",
    }
    assert len(report.targets) == 2
    assert set(report.baseline) <= set(report.figures)
