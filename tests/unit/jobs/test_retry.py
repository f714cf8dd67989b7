from __future__ import annotations

from datetime import timedelta

import pytest

from core.jobs.retry import WORKER_LOST, JobError, backoff

MIDDLE = 0.5  # the jitter that changes nothing


def delay(attempt: int, *, error: JobError = WORKER_LOST, jitter: float = MIDDLE) -> timedelta | None:
    return backoff(error, attempt=attempt, max_attempts=20, jitter=lambda: jitter)


@pytest.mark.parametrize(("attempt", "seconds"), [(1, 2), (2, 4), (3, 8), (7, 128), (8, 256), (9, 300), (19, 300)])
def test_the_wait_doubles_from_two_seconds_to_five_minutes(attempt, seconds):
    assert delay(attempt) == timedelta(seconds=seconds)


@pytest.mark.parametrize("attempt", [20, 21])
def test_the_last_attempt_is_followed_by_none(attempt):
    assert delay(attempt) is None


def test_a_permanent_error_is_never_retried():
    assert delay(1, error=JobError("picture-unreadable", "Not a picture.", retryable=False)) is None


def test_jitter_spreads_the_wait_by_a_quarter_each_way():
    assert delay(1, jitter=0.0) == timedelta(seconds=1.5)
    assert delay(1, jitter=1.0) == timedelta(seconds=2.5)
