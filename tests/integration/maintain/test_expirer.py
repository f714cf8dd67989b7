"""Jobs whose deadlines pass: those that wait expire, those that run are asked to stop."""

from __future__ import annotations

from datetime import timedelta

from core.control.expiring import ExpireCounts
from core.jobs.execution import Return, requeue
from core.jobs.states import AttemptOutcome
from workers.maintain import expirer

MINUTE = timedelta(minutes=1)


def expire(queue):
    return expirer.run_once(queue.sessions)


def test_a_job_that_still_waits_at_its_deadline_expires_and_says_so(queue, clock):
    (job_id,) = queue.submit(queue.tenant(), cancel_after=MINUTE)
    clock.advance(timedelta(seconds=59))
    assert expire(queue) == ExpireCounts()
    clock.advance(timedelta(seconds=2))
    assert expire(queue) == ExpireCounts(expired=1)
    job = queue.job(job_id)
    assert (job.state, job.error["code"]) == ("expired", "deadline-passed")
    assert queue.events(job_id) == ["generation.queued", "generation.expired"]
    assert queue.column("SELECT 1 FROM ready") == []
    assert expire(queue) == ExpireCounts()


def test_a_job_that_runs_past_its_deadline_is_asked_to_stop_once_and_ends_as_canceled(queue, clock):
    (job_id,) = queue.submit(queue.tenant(), cancel_after=MINUTE)
    (job,) = queue.claim()
    clock.advance(2 * MINUTE)
    assert expire(queue) == ExpireCounts(stopped=1)
    assert expire(queue) == ExpireCounts()
    assert queue.job(job_id).state == "running"
    with queue.sessions.begin() as session:
        requeue(session, [Return(job.id, job.token, AttemptOutcome.RETURNED, 1.0)])
    ended = queue.job(job_id)
    assert (ended.state, ended.error["code"]) == ("canceled", "deadline-passed")


def test_a_job_that_succeeds_while_it_is_asked_to_stop_has_no_error(queue, clock):
    (job_id,) = queue.submit(queue.tenant(), cancel_after=MINUTE)
    (job,) = queue.claim()
    clock.advance(2 * MINUTE)
    expire(queue)
    queue.finish(job, images=[])
    assert (queue.job(job_id).state, queue.job(job_id).error) == ("succeeded", None)


def test_a_job_without_a_deadline_waits_for_ever(queue, clock):
    (job_id,) = queue.submit(queue.tenant())
    clock.advance(timedelta(days=400))
    assert expire(queue) == ExpireCounts()
    assert queue.job(job_id).state == "queued"


def test_the_place_in_the_queue_of_an_expired_job_is_free(queue, clock):
    tenant = queue.tenant()
    queue.submit(tenant, 3, cancel_after=MINUTE)
    (stays,) = queue.submit(tenant)
    clock.advance(2 * MINUTE)
    expire(queue)
    assert [job.id for job in queue.claim(8)] == [stays]
