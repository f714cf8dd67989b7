from __future__ import annotations

import math
import random

import pytest

from core.scheduling.estimates import Calibration, cost_keys, estimated_cost, learned_mean, work_ahead_ms


def test_a_cost_is_the_formulas_until_something_was_learned():
    assert estimated_cost(1000, None) == 1000
    assert estimated_cost(1000, math.log(3)) == 3000
    assert estimated_cost(0, None) == 1


def test_costs_are_learned_under_the_lane_first_and_the_kind_last():
    assert cost_keys("generation:mdl_1:64x64:4", "generation", "mdl_1") == [
        "generation:mdl_1:64x64:4",
        "generation:mdl_1",
        "generation",
    ]


def test_what_is_learned_comes_near_the_truth_and_follows_it():
    mean: float | None = None
    for count in range(50):
        mean = learned_mean(mean, count, 1000, 5000)
    assert estimated_cost(1000, mean) == pytest.approx(5000, rel=0.01)
    for count in range(50, 100):
        mean = learned_mean(mean, count, 1000, 500)
    assert estimated_cost(1000, mean) == pytest.approx(500, rel=0.05)


def test_one_absurd_measurement_changes_little():
    mean = 0.0
    mean = learned_mean(mean, 100, 1000, 1e12)
    assert estimated_cost(1000, mean) < 2000


def test_half_of_the_starts_come_by_the_median_and_nine_tenths_by_the_high_one():
    chance = random.Random(1)
    calibration = Calibration()
    for _ in range(4000):
        estimated = chance.uniform(100, 60_000)
        calibration = calibration.after(estimated, 3 * estimated * chance.lognormvariate(0, 0.5))
    assert calibration.within_median / calibration.samples == pytest.approx(0.5, abs=0.03)
    assert calibration.within_high / calibration.samples == pytest.approx(0.9, abs=0.03)
    median, high = calibration.start_seconds(10_000)
    assert 20 < median < 45 < high < 90


def test_the_high_estimate_is_never_before_the_median():
    median, high = Calibration(median_log=1.0, high_log=0.0).start_seconds(1000)
    assert 0 < median == high


def test_work_is_shared_by_the_workers():
    assert work_ahead_ms(4000, 6000, 5) == 2000
    assert work_ahead_ms(4000, 6000, 0) == 10_000
