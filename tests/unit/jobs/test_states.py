from __future__ import annotations

import pytest

from core.jobs.states import TERMINAL, TRANSITIONS, AttemptOutcome, JobState


def test_every_state_says_where_it_may_go():
    assert set(TRANSITIONS) == set(JobState)


@pytest.mark.parametrize("state", JobState)
def test_a_state_is_terminal_when_nothing_follows_it(state):
    assert state.is_terminal == (not TRANSITIONS[state]) == (state in TERMINAL)


@pytest.mark.parametrize("state", sorted(TERMINAL))
def test_every_end_but_expiry_can_be_reached_from_running_and_is_an_attempt_outcome(state):
    if state is not JobState.EXPIRED:
        assert state in TRANSITIONS[JobState.RUNNING]
        assert AttemptOutcome(state)


def test_a_running_job_can_go_back_and_a_queued_one_cannot_succeed_unseen():
    assert JobState.QUEUED in TRANSITIONS[JobState.RUNNING]
    assert JobState.SUCCEEDED not in TRANSITIONS[JobState.QUEUED]
