"""How a token bucket's standing is told."""

from __future__ import annotations

from datetime import timedelta

import pytest

from core.tenants.rates import RatePolicy, RateStanding

POLICY = RatePolicy("jobs", 60)  # a token each second


def standing(seconds: float) -> RateStanding:
    return RateStanding(POLICY, taken=True, full_in=timedelta(seconds=seconds))


@pytest.mark.parametrize(
    ("full_in", "left", "next_in"), [(-5, 60, 0), (0, 60, 0), (0.25, 59, 0), (59, 1, 0), (59.5, 0, 0.5), (60, 0, 1)]
)
def test_a_bucket_has_what_it_got_back(full_in: float, left: int, next_in: float):
    told = standing(full_in)
    assert told.left == left
    assert told.next_in.total_seconds() == pytest.approx(next_in)


def test_the_headers_are_those_of_the_draft():
    assert POLICY.as_header() == '"jobs";q=60;w=60'
    assert standing(20.2).as_header() == '"jobs";r=39;t=21'
