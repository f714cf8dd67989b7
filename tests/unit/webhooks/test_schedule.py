from __future__ import annotations

from datetime import timedelta

import pytest

from core.webhooks.schedule import DELAYS, MAX_ATTEMPTS, Answer, DeliveryState, Verdict, judge

QUICK = timedelta(milliseconds=30)
OK = Answer(204, None, QUICK)
BROKEN = Answer(500, "Answered 500.", QUICK)


def middle() -> float:
    return 0.5


def after(answer: Answer, attempt: int = 1) -> Verdict:
    return judge(answer, attempt=attempt, jitter=middle)


def test_an_accepted_delivery_is_delivered_at_any_attempt():
    assert {after(OK, attempt) for attempt in range(1, MAX_ATTEMPTS + 1)} == {Verdict(DeliveryState.DELIVERED)}


def test_the_schedule_has_ten_attempts_over_three_days():
    delays = [after(BROKEN, attempt).delay for attempt in range(1, MAX_ATTEMPTS)]
    assert delays == list(DELAYS)
    assert MAX_ATTEMPTS == 10
    assert sum(DELAYS, timedelta()) == timedelta(hours=75, minutes=35, seconds=5)


def test_an_address_that_is_gone_ends_its_endpoint_or_only_itself_where_others_share_that():
    gone = Answer(410, "Answered 410.", QUICK)
    assert judge(gone, attempt=1, jitter=middle) == Verdict(DeliveryState.HELD)
    assert judge(gone, attempt=1, jitter=middle, is_shared=True) == Verdict(DeliveryState.FAILED)


def test_after_the_last_attempt_it_is_given_up():
    assert after(BROKEN, MAX_ATTEMPTS) == Verdict(DeliveryState.FAILED)


@pytest.mark.parametrize("attempt", range(1, MAX_ATTEMPTS))
def test_jitter_moves_a_delay_by_a_fifth_either_way(attempt: int):
    shortest = judge(BROKEN, attempt=attempt, jitter=lambda: 0.0).delay
    longest = judge(BROKEN, attempt=attempt, jitter=lambda: 0.999_999).delay
    assert shortest == DELAYS[attempt - 1] * 0.8
    assert longest == pytest.approx(DELAYS[attempt - 1] * 1.2, rel=1e-5)


@pytest.mark.parametrize(
    ("asked", "waited"),
    [
        (timedelta(seconds=120), timedelta(seconds=120)),
        (timedelta(seconds=1), DELAYS[0]),  # never sooner than the schedule
        (timedelta(seconds=-10), DELAYS[0]),
        (timedelta(days=400), timedelta(days=1)),  # nor later than a day
    ],
)
def test_retry_after_is_honoured_within_bounds(asked: timedelta, waited: timedelta):
    assert after(Answer(503, "Answered 503.", QUICK, retry_after=asked)).delay == waited


def test_retry_after_does_not_prolong_the_last_attempt():
    assert after(Answer(503, "Answered 503.", QUICK, retry_after=timedelta(1)), MAX_ATTEMPTS).delay is None


@pytest.mark.parametrize("attempt", [1, MAX_ATTEMPTS])
def test_what_is_answered_by_gone_is_held_at_any_attempt(attempt: int):
    assert after(Answer(410, "Answered 410.", QUICK), attempt) == Verdict(DeliveryState.HELD)


@pytest.mark.parametrize(
    ("status", "asked", "quiet"),
    [
        (429, timedelta(minutes=2), timedelta(minutes=2)),
        (503, timedelta(days=9), timedelta(days=1)),
        (429, None, None),
        (429, timedelta(seconds=-3), None),
        (500, timedelta(minutes=2), None),  # one delivery failed; nothing is said of the others
    ],
)
def test_only_a_receiver_that_has_too_much_to_do_is_left_alone(
    status: int, asked: timedelta | None, quiet: timedelta | None
):
    assert Answer(status, "no", QUICK, retry_after=asked).quiet == quiet


def test_no_answer_is_tried_again():
    assert after(Answer(None, "No answer within 15 s.", QUICK)).state is DeliveryState.PENDING
