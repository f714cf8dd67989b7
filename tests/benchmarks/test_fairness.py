from __future__ import annotations

import pytest

from tests.benchmarks.fairness import QUICK, jain, measure
from tests.benchmarks.report import Report
from tests.stack import TestServers


def test_jains_index_is_one_for_equal_shares_and_the_share_of_the_only_one_served():
    assert jain([3.0, 3.0, 3.0]) == pytest.approx(1)
    assert jain([5.0, 0.0, 0.0, 0.0]) == pytest.approx(0.25)


def test_the_fair_share_holds_in_its_quick_form(servers: TestServers):
    report = Report()
    measure(report, servers, QUICK)
    # A share by weight is only as exact as there are batches: the whole run says how exact.
    missed = {target.figure for target in report.targets if not target.met}
    assert missed <= {"largest error of shares by weights 1:2:4"}
    assert report.figures["largest error of shares by weights 1:2:4"] < 0.2
    assert report.figures["service times first in, first out would take"] > 10
