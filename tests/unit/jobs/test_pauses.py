from __future__ import annotations

from datetime import timedelta
from itertools import accumulate, islice, pairwise

import pytest

from core.jobs.pauses import growing


@pytest.mark.parametrize("longest", [0.2, 0.3, 1.0])
def test_whoever_waits_is_told_soon_after_a_short_job_and_in_time_after_a_long_one(longest):
    looks = list(accumulate(islice(growing(timedelta(seconds=longest)), 200), initial=0.0))
    for before, after in pairwise(looks):
        assert after - before <= min(longest, max(0.025, 0.5 * before + 0.025)) + 1e-9


def test_long_jobs_are_not_looked_at_more_often_than_is_allowed():
    looks = list(accumulate(islice(growing(timedelta(seconds=0.3)), 1000)))
    assert sum(at < 60 for at in looks) <= 60 / 0.3 + 5
    assert looks[-1] - looks[-2] == pytest.approx(0.3)


def test_a_rest_that_may_only_be_short_is_always_as_long_as_that():
    assert list(islice(growing(timedelta(milliseconds=10)), 3)) == [0.01] * 3
