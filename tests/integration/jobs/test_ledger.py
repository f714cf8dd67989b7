"""The ledger: what jobs reserve, what they are charged, and that it always adds up to what the jobs say."""

from __future__ import annotations

from datetime import timedelta

import pytest
from sqlalchemy import text
from sqlalchemy.exc import IntegrityError, ProgrammingError
from sqlalchemy.orm import Session

from core.budgets.statements import MISMATCHES
from core.control.expiring import expire
from core.jobs import execution
from core.jobs.execution import Ending, Return
from core.jobs.recovery import reap
from core.jobs.retry import JobError
from core.jobs.states import AttemptOutcome, JobState
from core.tenants.provisioning import create_key

BROKEN = JobError("engine-lost", "It broke.", retryable=True)
COST_MS = 1000  # of a job as `Queue.submit` makes it


def key_of(queue, tenant_id):
    with Session(queue.owners) as session, session.begin():
        create_key(session, tenant_id, "k", frozenset({"generate"}))
        return session.scalar(text("SELECT id FROM api_keys WHERE tenant_id = :id"), {"id": tenant_id})


def entries(queue, job_id):
    rows = "SELECT kind, reserved_ms, charged_ms FROM ledger_entries WHERE job_id = :id ORDER BY id"
    with queue.owners.begin() as connection:
        return [tuple(row) for row in connection.execute(text(rows), {"id": job_id})]


def mismatches(queue):
    with queue.workers.begin() as connection:
        return [tuple(row) for row in connection.execute(MISMATCHES)]


def end(queue, job, state, seconds, **more):
    with queue.sessions.begin() as session:
        assert execution.finish(session, [Ending(job.id, job.token, state, seconds, **more)])


def give_back(queue, job, outcome, seconds, error=None):
    with queue.sessions.begin() as session:
        assert execution.requeue(session, [Return(job.id, job.token, outcome, seconds, error=error)])
    with queue.owners.begin() as connection:
        connection.execute(text("UPDATE jobs SET not_before = lockstep_now() WHERE not_before IS NOT NULL"))
    queue.maintain()


def quoted(queue, job_id):
    with queue.owners.begin() as connection:
        connection.execute(text("UPDATE jobs SET quote_id = 'quo_1' WHERE id = :id"), {"id": job_id})


def test_a_job_that_succeeds_is_charged_what_it_used_and_reserves_nothing_any_more(queue):
    (job_id,) = queue.submit(queue.tenant())
    assert entries(queue, job_id) == [("reserve", COST_MS, 0)]
    (job,) = queue.claim()
    end(queue, job, JobState.SUCCEEDED, 2.5, result={})
    assert entries(queue, job_id) == [("reserve", COST_MS, 0), ("settle", -COST_MS, 2500)]
    assert mismatches(queue) == []


def test_a_job_that_fails_is_not_charged_whatever_it_used(queue):
    (job_id,) = queue.submit(queue.tenant())
    (job,) = queue.claim()
    give_back(queue, job, AttemptOutcome.RETURNED, 3.0)
    (job,) = queue.claim()
    end(queue, job, JobState.FAILED, 9.0, error=BROKEN)
    assert entries(queue, job_id)[1:] == [("release", -COST_MS, 0)]
    assert mismatches(queue) == []


def test_attempts_that_failed_are_not_charged_to_the_job_that_succeeds_after_them(queue):
    (job_id,) = queue.submit(queue.tenant())
    (job,) = queue.claim()
    give_back(queue, job, AttemptOutcome.FAILED, 5.0, BROKEN)
    (job,) = queue.claim()
    end(queue, job, JobState.SUCCEEDED, 1.25, result={})
    assert entries(queue, job_id)[1:] == [("settle", -COST_MS, 1250)]
    assert queue.job(job_id).gpu_seconds == 6.25
    assert mismatches(queue) == []


def test_a_lost_attempt_is_not_charged(queue, later):
    (job_id,) = queue.submit(queue.tenant())
    queue.claim()
    with later(timedelta(minutes=1)) as session, session.begin():
        assert reap(session, jitter=lambda: 0.5).requeued == 1
    with queue.owners.begin() as connection:
        connection.execute(text("UPDATE jobs SET not_before = lockstep_now()"))
    queue.maintain()
    (job,) = queue.claim()
    end(queue, job, JobState.SUCCEEDED, 1.0, result={})
    assert entries(queue, job_id)[1:] == [("settle", -COST_MS, 1000)]
    assert mismatches(queue) == []


def test_work_that_is_given_back_and_goes_on_is_charged_with_the_rest(queue):
    (job_id,) = queue.submit(queue.tenant())
    (job,) = queue.claim()
    give_back(queue, job, AttemptOutcome.RETURNED, 2.0)
    assert entries(queue, job_id) == [("reserve", COST_MS, 0)]
    (job,) = queue.claim()
    end(queue, job, JobState.SUCCEEDED, 1.0, result={})
    assert entries(queue, job_id)[1:] == [("settle", -COST_MS, 3000)]
    assert mismatches(queue) == []


def test_a_job_that_is_canceled_in_the_queue_costs_nothing(queue):
    tenant = queue.tenant()
    (job_id,) = queue.submit(tenant)
    queue.cancel(tenant, job_id)
    assert entries(queue, job_id)[1:] == [("release", -COST_MS, 0)]
    assert mismatches(queue) == []


def test_a_job_that_is_canceled_on_its_way_is_charged_up_to_there(queue):
    tenant = queue.tenant()
    (job_id,) = queue.submit(tenant)
    (job,) = queue.claim()
    queue.cancel(tenant, job_id)
    end(queue, job, JobState.CANCELED, 0.5)
    assert entries(queue, job_id)[1:] == [("settle", -COST_MS, 500)]
    assert mismatches(queue) == []


def test_a_job_that_expires_in_the_queue_costs_nothing_whatever_was_used_before(queue, later):
    (job_id,) = queue.submit(queue.tenant(), cancel_after=timedelta(minutes=1))
    (job,) = queue.claim()
    give_back(queue, job, AttemptOutcome.RETURNED, 2.0)
    with later(timedelta(minutes=2)) as session, session.begin():
        assert expire(session).expired == 1
    assert entries(queue, job_id)[1:] == [("release", -COST_MS, 0)]
    assert mismatches(queue) == []


def test_a_quote_is_the_most_that_is_charged(queue):
    (job_id,) = queue.submit(queue.tenant())
    quoted(queue, job_id)
    (job,) = queue.claim()
    end(queue, job, JobState.SUCCEEDED, 60.0, result={})
    assert entries(queue, job_id)[1:] == [("settle", -COST_MS, COST_MS)]
    assert mismatches(queue) == []


def test_a_family_reserves_for_each_of_its_jobs_and_all_of_it_comes_back_when_one_fails(queue):
    tenant = queue.tenant()
    parent, children = queue.distil(tenant)
    (job,) = queue.claim()
    end(queue, job, JobState.FAILED, 1.0, error=BROKEN)
    queue.maintain()
    assert queue.job(parent).state == "failed"
    for job_id in (parent, *children):
        assert [entry[0] for entry in entries(queue, job_id)] == ["reserve", "release"]
    assert mismatches(queue) == []


def test_a_key_of_the_tenant_is_counted_beside_it(queue):
    tenant = queue.tenant()
    key = key_of(queue, tenant)
    queue.submit(tenant, 2, api_key_id=key)
    queue.submit(tenant)
    counts = "SELECT jobs FROM budgets ORDER BY api_key_id NULLS FIRST"
    assert queue.column(counts) == [3, 2]
    for _ in range(3):
        (job,) = queue.claim()
        queue.finish(job)
    assert mismatches(queue) == []
    queue.submit(tenant)  # the next look folds the notes in
    assert queue.column(counts) == [1, 0]
    assert mismatches(queue) == []


def test_a_job_cannot_be_charged_twice(queue):
    queue.submit(queue.tenant())
    (job,) = queue.claim()
    end(queue, job, JobState.SUCCEEDED, 1.0, result={})
    again = text(
        "INSERT INTO ledger_entries (tenant_id, job_id, kind, job_kind, model_id, reserved_ms, charged_ms)"
        " SELECT tenant_id, job_id, 'settle', job_kind, model_id, 0, 7 FROM ledger_entries WHERE kind = 'settle'"
    )
    with Session(queue.workers) as session, pytest.raises(IntegrityError, match="uq_ledger_entries_close"):
        session.execute(again)


def test_what_is_in_the_ledger_stays_there(queue):
    queue.submit(queue.tenant())
    with Session(queue.workers) as session, pytest.raises(ProgrammingError, match="permission denied"):
        session.execute(text("UPDATE ledger_entries SET charged_ms = 0"))
    with Session(queue.workers) as session, session.begin():
        session.execute(text("DELETE FROM ledger_entries"))
    assert queue.one("SELECT count(*) FROM ledger_entries").count == 1


def test_only_the_ledger_of_a_self_tests_tenant_may_go(queue):
    kept, synthetic = queue.tenant("kept"), queue.tenant("synthetic")
    for tenant_id in (kept, synthetic):
        queue.submit(tenant_id)
    tested = "INSERT INTO self_tests (id, actor, subject_id, until) VALUES ('tst_1', 'x', :id, lockstep_now())"
    with Session(queue.workers) as session, session.begin():
        session.execute(text(tested), {"id": synthetic})
        session.execute(text("DELETE FROM ledger_entries"))
    assert queue.column("SELECT tenant_id FROM ledger_entries") == [kept]


@pytest.mark.parametrize(
    ("forged", "problem"),
    [
        ("UPDATE jobs SET charged_ms = charged_ms + 1", "charged otherwise"),
        ("UPDATE jobs SET reserved_ms = 5", "another one than the job says"),
        ("UPDATE ledger_entries SET charged_ms = 9 WHERE kind = 'settle'", "charged otherwise"),
        ("DELETE FROM ledger_entries WHERE kind = 'settle'", "not closed exactly"),
        ("DELETE FROM ledger_entries", "no reservation"),
        ("UPDATE budgets SET reserved_ms = reserved_ms + 1", "not the sum of the ledger"),
        ("DELETE FROM budget_notes", "not the sum of the ledger"),
        ("UPDATE job_attempts SET gpu_seconds = 7", "charged otherwise"),
        ("UPDATE budgets SET stored_bytes = 1", "not those of the files"),
    ],
)
def test_whatever_does_not_add_up_is_found(queue, forged, problem):
    queue.submit(queue.tenant())
    (job,) = queue.claim()
    end(queue, job, JobState.SUCCEEDED, 1.0, result={})
    assert mismatches(queue) == []
    with queue.owners.begin() as connection:
        connection.execute(text(forged))
    assert any(problem in found for *_, found in mismatches(queue))
