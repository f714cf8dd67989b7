"""Which training is asked to make way, when, and what becomes of it."""

from __future__ import annotations

from datetime import timedelta

import pytest

from core.jobs.execution import Return, look, requeue
from core.jobs.recovery import promote
from core.jobs.states import AttemptOutcome
from workers.maintain import preemptor

LEAST = timedelta(seconds=30)
MOST = 2


def preempt(queue, *, most=MOST):
    return preemptor.run_once(queue.sessions, least=LEAST, most=most).asked


def give_back(queue, *jobs):
    with queue.sessions.begin() as session:
        requeue(session, [Return(job.id, job.token, AttemptOutcome.RETURNED, 1.0) for job in jobs])


def is_asked(queue, job):
    with queue.sessions.begin() as session:
        return look(session, [job])[job.token].yield_requested


@pytest.fixture
def training(queue, crew, clock):
    """A training that has run for a minute on the only worker, which is busy."""
    crew.hire("busy")
    queue.train(queue.tenant())
    (job,) = queue.claim()
    clock.advance(timedelta(minutes=1))
    return job


def a_generation_waits(queue, clock, *, of=None):
    ids = queue.submit(of or queue.tenant("quick"))
    clock.advance(timedelta(seconds=2))
    return ids[0]


def test_a_training_is_asked_once_when_generations_wait_and_nobody_is_idle(queue, clock, training):
    assert preempt(queue) == 0
    a_generation_waits(queue, clock)
    assert preempt(queue) == 1
    assert is_asked(queue, training)
    assert preempt(queue) == 0  # it has been asked


def test_an_idle_worker_draws_instead(queue, clock, crew, training):
    a_generation_waits(queue, clock)
    crew.hire("idle")
    assert preempt(queue) == 0


def test_one_that_has_just_begun_is_left_alone(queue, clock, crew):
    crew.hire("busy")
    queue.train(queue.tenant())
    queue.claim()
    a_generation_waits(queue, clock)
    assert preempt(queue) == 0
    clock.advance(LEAST)
    assert preempt(queue) == 1


def test_nothing_makes_way_for_what_may_not_run(queue, clock, training):
    a_generation_waits(queue, clock, of=queue.tenant("capped", max_running=0))
    assert preempt(queue) == 0


def test_trainings_do_not_make_way_for_trainings(queue, clock, training):
    queue.train(queue.tenant("other"), name="jerry")
    clock.advance(timedelta(seconds=2))
    assert preempt(queue) == 0


def test_what_made_way_lets_the_others_go_first_has_lost_no_attempt_and_goes_on_later(queue, clock, training):
    waiting = a_generation_waits(queue, clock, of=training.tenant_id)
    preempt(queue)
    give_back(queue, training)
    assert [job.id for job in queue.claim()] == [waiting]  # though it is younger than the training
    job = queue.job(training.id)
    assert (job.state, job.attempt, job.yields, job.yield_requested_at) == ("queued", 0, 1, None)
    assert queue.claim() == []
    clock.advance(timedelta(seconds=20))
    with queue.sessions.begin() as session:
        promote(session)
    assert [job.id for job in queue.claim()] == [training.id]


def test_it_makes_way_a_few_times_only(queue, clock, training):
    for _ in range(MOST):
        a_generation_waits(queue, clock, of=training.tenant_id)
        assert preempt(queue) == 1
        give_back(queue, training)
        (drawn,) = queue.claim()
        queue.finish(drawn, images=[])
        clock.advance(timedelta(minutes=1))
        with queue.sessions.begin() as session:
            promote(session)
        (training,) = queue.claim()
        clock.advance(timedelta(minutes=1))
    a_generation_waits(queue, clock, of=training.tenant_id)
    assert preempt(queue) == 0


def test_zero_times_is_never(queue, clock, training):
    a_generation_waits(queue, clock)
    assert preempt(queue, most=0) == 0


def test_a_drain_is_no_yield(queue, training):
    give_back(queue, training)
    assert queue.job(training.id).yields == 0
