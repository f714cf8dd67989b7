"""What is said of means and of curves, and how often their intervals hold the truth."""

from __future__ import annotations

import numpy as np
import pytest

from tests.benchmarks.perfusion.intervals import lift, lift_between, mean_of, reach, student_quantile


def curve(*points: tuple[float, float]) -> list[tuple[np.ndarray, np.ndarray]]:
    return [(np.full(6, text), np.full(6, image)) for text, image in points]


@pytest.mark.parametrize(
    ("point", "above"),
    [
        ((0.5, 0.4), 0.2),  # half of the pictures like one end, half like the other
        ((0.1, 0.4), 0.5),  # more text than it needs
        ((0.8, 0.4), -0.1),
        ((0.95, 0.4), -0.1),  # more text than there is to be had
    ],
)
def test_a_curve_lies_above_a_point_by_what_can_be_had_with_no_less_text(point: tuple[float, float], above: float):
    assert lift(curve((0.2, 0.9), (0.8, 0.3)), curve(point)[0]).value == pytest.approx(above)


def test_a_curve_whose_text_is_always_right_is_worth_its_best_image_score():
    assert lift(curve((1, 0.3), (1, 0.9), (1, 0.5)), curve((1, 0.4))[0]).value == pytest.approx(0.5)


def test_what_lies_below_a_mixture_of_others_adds_nothing():
    ends = curve((0.2, 0.9), (0.8, 0.3))
    assert lift([*ends, *curve((0.5, 0.1))], curve((0.4, 0.0))[0]).value == pytest.approx(0.7)
    assert lift([*ends, *curve((0.5, 0.8))], curve((0.4, 0.0))[0]).value == pytest.approx(0.9 - 0.1 * 2 / 3)


def test_a_curve_reaches_as_far_as_the_point_of_it_with_most_text():
    assert reach(curve((0.2, 0.9), (0.8, 0.3)), curve((0.7, 0.0))[0]).value == pytest.approx(0.1)
    assert reach(curve((0.2, 0.9), (0.8, 0.3)), curve((0.9, 0.0))[0]).value == pytest.approx(-0.1)


def test_a_curve_lies_above_another_by_what_it_has_more_at_no_less_text_as_seen_from_both():
    falling, floor = curve((0.2, 0.9), (0.8, 0.3)), curve((1.0, 0.0))
    assert lift_between(falling, falling, floor).value == 0
    part = curve((0.3, 0.8), (0.7, 0.4))  # which lacks the image that the whole has at its end
    assert lift_between(falling, part, floor).value == pytest.approx(0.1 / 3)
    lower = curve((0.2, 0.8), (0.8, 0.2))
    assert lift_between(falling, lower, floor).value == pytest.approx(0.1)
    assert lift_between(lower, falling, floor).value == pytest.approx(-0.1)
    right_of = curve((0.9, 0.5))  # more text and more image than the end of the other
    assert lift_between(right_of, curve((0.8, 0.3)), floor).value == pytest.approx((0.2 + 0.35) / 2)


def test_an_interval_holds_the_mean_and_shrinks_with_agreement():
    spread, same = mean_of(np.array([0.0, 1.0] * 6)), mean_of(np.full(12, 0.5))
    assert spread.low < spread.value == 0.5 < spread.high
    assert (same.low, same.high) == (0.5, 0.5)
    assert mean_of(np.array([0.3])).low == 0.3


@pytest.mark.parametrize(("freedom", "quantile"), [(5, 2.5706), (11, 2.2010), (1000, 1.9623)])
def test_students_quantile_is_the_tables(freedom: int, quantile: float):
    assert student_quantile(freedom) == pytest.approx(quantile, rel=3e-3)


def test_intervals_of_twelve_hold_the_truth_as_often_as_they_say():
    rng = np.random.default_rng(0)
    found = [mean_of(rng.normal(size=12)) for _ in range(400)]
    assert np.mean([one.low <= 0 <= one.high for one in found]) == pytest.approx(0.945, abs=0.025)
