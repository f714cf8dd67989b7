"""The reaper, the promoter and the forgetter: what brings work back."""

from __future__ import annotations

from datetime import timedelta

from sqlalchemy import text

from tests.integration.jobs.conftest import LEASE
from workers.maintain import forgetter, promoter, reaper
from workers.maintain.promoter import PromoteCounts

EXPIRED = LEASE + timedelta(seconds=1)
BACKED_OFF = timedelta(seconds=10)


def reap(queue):
    return reaper.run_once(queue.sessions, jitter=lambda: 0.5)


def outcomes(queue, job_id):
    return queue.column("SELECT outcome FROM job_attempts WHERE job_id = :id ORDER BY token", id=job_id)


def test_a_job_whose_worker_died_goes_back_and_is_claimed_again(queue, clock):
    (job_id,) = queue.submit(queue.tenant())
    (lost,) = queue.claim()
    assert reap(queue).requeued == 0
    clock.advance(EXPIRED)
    assert reap(queue).requeued == 1
    assert reap(queue).requeued == 0
    assert queue.claim() == []
    clock.advance(BACKED_OFF)
    assert promoter.run_once(queue.sessions) == PromoteCounts(promoted=1)
    (again,) = queue.claim()
    assert (again.id, again.attempt) == (job_id, 2)
    assert again.token > lost.token
    assert outcomes(queue, job_id) == ["lost", None]


def test_after_its_last_attempt_a_lost_job_fails_and_says_why(queue, clock):
    (job_id,) = queue.submit(queue.tenant())
    for _ in range(3):
        assert len(queue.claim()) == 1
        clock.advance(EXPIRED)
        counts = reap(queue)
        clock.advance(BACKED_OFF)
        promoter.run_once(queue.sessions)
    assert (counts.requeued, counts.failed) == (0, 1)
    job = queue.job(job_id)
    assert (job.state, job.error["code"], job.attempt) == ("failed", "worker-lost", 3)
    assert queue.events(job_id)[-1] == "generation.failed"
    assert outcomes(queue, job_id) == ["lost"] * 3


def test_a_lost_job_that_was_to_be_canceled_is(queue, clock):
    tenant = queue.tenant()
    (job_id,) = queue.submit(tenant)
    queue.claim()
    queue.cancel(tenant, job_id)
    clock.advance(EXPIRED)
    assert reap(queue).canceled == 1
    assert queue.job(job_id).state == "canceled"


def test_a_held_lease_is_left_alone(queue, clock):
    tenant = queue.tenant()
    queue.submit(tenant, 2)
    queue.claim()
    clock.advance(EXPIRED)
    (held,) = queue.claim()
    reap(queue)
    assert queue.job(held.id).state == "running"


def test_a_job_is_promoted_when_its_time_has_come_and_not_before(queue, clock):
    due, later = queue.submit(queue.tenant(), 2)
    queue.claim(room=2)
    clock.advance(EXPIRED)
    reap(queue)
    with queue.sessions.begin() as session:
        session.execute(
            text("UPDATE jobs SET not_before = not_before + interval '1 day' WHERE id = :id"), {"id": later}
        )
    clock.advance(BACKED_OFF)
    assert promoter.run_once(queue.sessions).promoted == 1
    assert queue.column("SELECT job_id FROM ready") == [due]


def test_a_worker_without_a_word_is_forgotten_until_it_speaks_again(queue, crew, clock):
    silent = crew.hire()
    clock.advance(timedelta(seconds=91))
    present = crew.hire()
    assert forgetter.run_once(queue.sessions).forgotten == 1
    assert forgetter.run_once(queue.sessions).forgotten == 0
    states = "SELECT state FROM workers WHERE id = :id"
    assert (queue.column(states, id=silent), queue.column(states, id=present)) == (["stopped"], ["idle"])
    crew.say(silent, "idle")
    assert queue.column(states, id=silent) == ["idle"]
