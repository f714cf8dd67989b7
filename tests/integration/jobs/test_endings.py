from __future__ import annotations

import threading
from datetime import timedelta

import pytest
from sqlalchemy.exc import IntegrityError, OperationalError

from core.errors import NotCancelable, NotFound
from core.jobs.execution import Ending, Return, finish, hold, renew, report, requeue
from core.jobs.recovery import ReapCounts, promote, reap
from core.jobs.retry import JobError
from core.jobs.states import AttemptOutcome, JobStage, JobState
from tests.integration.jobs.conftest import LEASE
from tests.waiting import until

OOM = JobError("out-of-memory", "The GPU is full.", retryable=True)
DEAD = LEASE + timedelta(seconds=1)


def no_jitter():
    return 0.5


def success(job, **changes):
    return Ending(job.id, job.token, JobState.SUCCEEDED, 1.5, result={"images": []}, **changes)


def claim_one(queue, tenant=None):
    queue.submit(tenant or queue.tenant())
    (job,) = queue.claim()
    return job


def do(queue, function, *arguments, **named):
    with queue.sessions.begin() as session:
        return function(session, *arguments, **named)


def test_a_finished_job_has_its_result_its_time_and_its_attempt(queue):
    job = claim_one(queue)
    assert do(queue, finish, [success(job)]) == {job.id}
    row = queue.job(job.id)
    assert (row.state, row.result, row.gpu_seconds, row.lease_token, row.stage) == (
        "succeeded", {"images": []}, 1.5, None, None,
    )  # fmt: skip
    assert row.finished_at is not None
    assert queue.events(job.id)[-1] == "generation.succeeded"
    assert queue.column("SELECT outcome FROM job_attempts WHERE token = :token", token=job.token) == ["succeeded"]


def test_nothing_is_finished_twice(queue):
    job = claim_one(queue)
    do(queue, finish, [success(job)])
    failure = Ending(job.id, job.token, JobState.FAILED, 1.0, error=OOM)
    assert do(queue, finish, [failure]) == set()
    assert queue.events(job.id).count("generation.succeeded") == 1


def test_a_worker_that_lost_its_lease_writes_nothing(queue, later):
    job = claim_one(queue)
    with later(DEAD) as session:
        assert reap(session, jitter=no_jitter) == ReapCounts(requeued=1)
        session.commit()
    assert do(queue, finish, [success(job)]) == set()
    assert do(queue, report, job, progress={"step": 1}) is False
    assert do(queue, hold, [job]) == set()
    assert do(queue, renew, [job], lease=LEASE) == {}
    assert queue.job(job.id).state == "queued"


def test_a_lost_job_comes_back_after_its_backoff_under_a_new_token(queue, later):
    job = claim_one(queue)
    with later(DEAD) as session:
        reap(session, jitter=no_jitter)
        assert promote(session) == 0
        session.commit()
    assert queue.claim() == []
    with later(DEAD + timedelta(seconds=3)) as session:
        assert promote(session) == 1
        session.commit()
    (again,) = queue.claim()
    assert again.id == job.id
    assert again.token > job.token
    assert again.attempt == 2
    assert queue.column("SELECT outcome FROM job_attempts ORDER BY token") == ["lost", None]


def test_a_living_lease_is_left_alone(queue, later):
    job = claim_one(queue)
    with later(LEASE - timedelta(seconds=5)) as session:
        assert reap(session, jitter=no_jitter) == ReapCounts()
        assert job.token in renew(session, [job], lease=LEASE)
        session.commit()
    with later(DEAD) as session:
        assert reap(session, jitter=no_jitter) == ReapCounts()


def test_a_job_that_keeps_losing_its_worker_fails_with_every_attempt_on_record(queue, later):
    job = claim_one(queue)
    for number in range(1, 4):
        with later(DEAD * number + timedelta(seconds=10 * number)) as session:
            reap(session, jitter=no_jitter)
            session.commit()
        with later(DEAD * number + timedelta(seconds=10 * number + 9)) as session:
            promote(session)
            session.commit()
        queue.claim()
    row = queue.job(job.id)
    assert (row.state, row.attempt, row.error["code"]) == ("failed", 3, "worker-lost")
    assert queue.column("SELECT outcome FROM job_attempts") == ["lost"] * 3


def test_a_returned_job_has_lost_no_attempt(queue):
    job = claim_one(queue)
    back = Return(job.id, job.token, AttemptOutcome.RETURNED, 0.5)
    assert do(queue, requeue, [back]) == {job.id}
    assert do(queue, promote) == 1
    (again,) = queue.claim()
    assert (again.id, again.attempt) == (job.id, 1)


def test_a_checkpoint_outlives_the_attempt_that_wrote_it(queue):
    job = claim_one(queue)
    assert do(queue, report, job, stage=JobStage.WORKING, checkpoint={"key": "k", "step": 25})
    do(queue, requeue, [Return(job.id, job.token, AttemptOutcome.FAILED, 1.0, error=OOM)])
    do(queue, promote)
    assert queue.claim()[0].checkpoint == {"key": "k", "step": 25}


def test_a_queued_job_is_canceled_at_once(queue):
    tenant = queue.tenant()
    (job_id,) = queue.submit(tenant)
    assert queue.cancel(tenant, job_id).state == "canceled"
    assert queue.column("SELECT job_id FROM ready") == []
    assert queue.claim() == []
    assert queue.events(job_id) == ["generation.queued", "generation.canceled"]


def test_canceling_a_running_job_records_the_request_and_leaves_it_running(queue):
    tenant = queue.tenant()
    job = claim_one(queue, tenant)
    assert queue.cancel(tenant, job.id).state == "running"
    assert do(queue, renew, [job], lease=LEASE)[job.token].cancel_requested


def test_a_cancel_that_meets_a_job_on_its_way_back_to_the_queue_is_not_lost(queue):
    tenant = queue.tenant()
    job = claim_one(queue, tenant)
    canceled = []
    canceling = threading.Thread(target=lambda: canceled.append(queue.cancel(tenant, job.id).state))
    with queue.sessions.begin() as session:
        requeue(session, [Return(job.id, job.token, AttemptOutcome.RETURNED, 0.5)])
        canceling.start()
        until(lambda: queue.column("SELECT pid FROM pg_locks WHERE NOT granted"))
    canceling.join()
    assert canceled == ["canceled"]
    assert do(queue, promote) == 0
    assert queue.events(job.id)[-2:] == ["generation.queued", "generation.canceled"]


def test_canceling_twice_is_canceling_once_and_a_finished_job_stays_finished(queue):
    tenant = queue.tenant()
    (canceled,) = queue.submit(tenant)
    queue.cancel(tenant, canceled)
    assert queue.cancel(tenant, canceled).state == "canceled"
    done = claim_one(queue, tenant)
    do(queue, finish, [success(done)])
    with pytest.raises(NotCancelable):
        queue.cancel(tenant, done.id)


def test_another_tenants_job_cannot_be_canceled(queue):
    job = claim_one(queue)
    with pytest.raises(NotFound):
        queue.cancel(queue.tenant("stranger"), job.id)
    assert queue.job(job.id).cancel_requested_at is None


def test_a_canceled_job_is_not_revived_when_its_worker_dies(queue, later):
    tenant = queue.tenant()
    job = claim_one(queue, tenant)
    queue.cancel(tenant, job.id)
    with later(DEAD) as session:
        assert reap(session, jitter=no_jitter) == ReapCounts(canceled=1)
        session.commit()
    assert queue.job(job.id).state == "canceled"


@pytest.mark.parametrize(
    "change",
    [
        "state = 'succeeded'",  # without a result and a time
        "state = 'running'",  # without a lease
        "finished_at = now()",  # without an end
        "lease_until = now()",  # without a token
        "attempt = 4",
        "state = 'cancelling'",
    ],
)
def test_the_table_refuses_states_that_cannot_be(queue, change):
    (job_id,) = queue.submit(queue.tenant())
    with pytest.raises(IntegrityError), queue.owners.begin() as connection:
        connection.exec_driver_sql(f"UPDATE jobs SET {change} WHERE id = '{job_id}'")


def test_events_are_numbered_and_named_after_their_job(queue):
    job = claim_one(queue)
    do(queue, finish, [success(job)])
    ids = queue.column("SELECT id FROM events WHERE job_id = :id ORDER BY sequence", id=job.id)
    assert ids == [f"evt_{job.id[4:]}{number:06}" for number in (1, 2, 3)]


def test_renewing_and_reporting_a_batch_at_once_never_wait_for_each_other(queue):
    tenant = queue.tenant()
    queue.submit(tenant, 12)
    jobs = queue.claim(room=12)
    problems: list[Exception] = []

    def repeat(work):
        try:
            for _ in range(40):
                with queue.sessions.begin() as session:
                    work(session)
        except OperationalError as error:
            problems.append(error)

    def report_all(session):
        for job in sorted(jobs, key=lambda job: job.id):
            report(session, job, progress={"step": 1})

    threads = [
        threading.Thread(target=repeat, args=(lambda session: renew(session, list(reversed(jobs)), lease=LEASE),)),
        threading.Thread(target=repeat, args=(report_all,)),
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert problems == []
