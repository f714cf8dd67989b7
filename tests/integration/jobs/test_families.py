"""Jobs that wait for jobs which were made for them."""

from __future__ import annotations

import threading

import pytest

from core.control.families import FamilyCounts, distillation_params, pair_files, settle
from core.errors import NotCancelable
from core.jobs.execution import Ending, finish
from core.jobs.params import TeacherPairsParams
from core.jobs.products import keep_student
from core.jobs.retry import JobError
from core.jobs.states import JobState
from tests.waiting import until

BROKEN = JobError("teacher-pairs-invalid", "No.", retryable=False)


def fail(queue, job):
    with queue.sessions.begin() as session:
        finish(session, [Ending(job.id, job.token, JobState.FAILED, 1.0, error=BROKEN)])


def settle_all(queue):
    with queue.sessions.begin() as session:
        return settle(session)


def cancel_too_late(queue, tenant, job_id):
    with pytest.raises(NotCancelable):
        queue.cancel(tenant, job_id)


def states(queue, ids):
    return [queue.job(job_id).state for job_id in ids]


def test_a_distillation_waits_while_its_pairs_are_drawn_by_ordinary_jobs(queue):
    parent, children = queue.distil(queue.tenant())
    assert len(children) == 3  # 130 pairs, 64 or fewer a shard
    claimed = queue.claim(room=8) + queue.claim(room=8) + queue.claim(room=8)
    assert [job.id for job in claimed] == children
    assert [(job.params.shard, job.params.count) for job in claimed] == [(0, 43), (1, 43), (2, 44)]
    assert all(isinstance(job.params, TeacherPairsParams) for job in claimed)
    assert queue.claim() == []
    assert (queue.job(parent).state, queue.job(parent).blocked) == ("queued", True)
    assert queue.events(parent) == ["distillation.queued"]


def test_it_goes_on_once_all_have_succeeded_with_their_files_in_order(queue):
    parent, children = queue.distil(queue.tenant())
    first, second, third = queue.claim(), queue.claim(), queue.claim()
    for (job,) in (third, first):
        queue.finish(job, file_id=f"file_{job.params.shard}")
    queue.maintain()
    assert queue.claim() == []
    queue.finish(second[0], file_id="file_1")
    assert settle_all(queue) == FamilyCounts(unblocked=1)
    queue.maintain()
    (job,) = queue.claim()
    assert (job.id, job.params.kind, job.params.student_name) == (parent, "distillation", "swift")
    with queue.sessions() as session:
        assert pair_files(session, parent) == ["file_0", "file_1", "file_2"]
        assert distillation_params(session, parent) == job.params
        assert distillation_params(session, "job_gone") is None
    assert settle_all(queue) == FamilyCounts()
    assert states(queue, children) == ["succeeded"] * 3


def test_it_fails_with_the_first_that_cannot_be_drawn_and_takes_the_others_along(queue):
    parent, children = queue.distil(queue.tenant())
    (bad,), (busy,) = queue.claim(), queue.claim()
    fail(queue, bad)
    assert settle_all(queue) == FamilyCounts(failed=1)
    row = queue.job(parent)
    assert (row.state, row.error["code"], row.blocked) == ("failed", "child-failed", False)
    assert bad.id in row.error["message"]
    assert states(queue, children) == ["failed", "running", "canceled"]
    assert queue.job(busy.id).cancel_requested_at is not None
    assert queue.events(parent)[-1] == "distillation.failed"
    assert queue.events(children[2])[-1] == "teacher_pairs.canceled"
    assert queue.claim() == []
    assert settle_all(queue) == FamilyCounts()


def test_cancelling_it_cancels_what_was_made_for_it(queue):
    tenant = queue.tenant()
    parent, children = queue.distil(tenant)
    (busy,) = queue.claim()
    assert queue.cancel(tenant, parent).state == "canceled"
    assert states(queue, children) == ["running", "canceled", "canceled"]
    assert queue.job(busy.id).cancel_requested_at is not None
    assert queue.claim() == []
    with queue.sessions.begin() as session:
        finish(session, [Ending(busy.id, busy.token, JobState.CANCELED, 1.0)])
    assert settle_all(queue) == FamilyCounts()
    assert queue.cancel(tenant, parent).state == "canceled"


def test_a_child_that_is_canceled_by_itself_ends_the_distillation(queue):
    tenant = queue.tenant()
    parent, children = queue.distil(tenant)
    queue.cancel(tenant, children[1])
    settle_all(queue)
    assert queue.job(parent).state == "failed"
    with pytest.raises(NotCancelable):
        queue.cancel(tenant, parent)


def test_without_pairs_it_waits_for_nothing(queue):
    parent, children = queue.distil(queue.tenant(), pairs=0)
    assert children == []
    (job,) = queue.claim()
    assert (job.id, job.params.wanted, job.params.settings) == (parent, None, {"regression_weight": 0.0})


def test_a_cancel_and_a_pass_over_families_do_not_wait_for_each_other(queue):
    """Both lock the parent first: whichever comes second finds it moved."""
    tenant = queue.tenant()
    parent, children = queue.distil(tenant)
    (bad,) = queue.claim()
    fail(queue, bad)
    with queue.sessions() as session, session.begin():
        settle(session)
        canceling = threading.Thread(target=cancel_too_late, args=(queue, tenant, parent))
        canceling.start()
        until(lambda: queue.one("SELECT count(*) AS n FROM pg_locks WHERE NOT granted").n > 0)
    canceling.join(10)
    assert not canceling.is_alive()
    assert states(queue, [parent, *children]) == ["failed", "failed", "canceled", "canceled"]


def test_a_student_is_made_once(queue):
    parent, _ = queue.distil(queue.tenant(), pairs=0)
    (job,) = queue.claim()
    with queue.sessions.begin() as session:
        assert distillation_params(session, parent) is not None
    reserved = queue.one("SELECT * FROM models WHERE name = 'swift'")
    assert (reserved.kind, reserved.location, reserved.file_id) == ("student", None, None)
    assert reserved.teacher_id == job.params.model_id
    with queue.owners.begin() as connection:
        connection.exec_driver_sql(
            "INSERT INTO files (id, tenant_id, purpose, name, key, media_type, size_bytes, sha256)"
            f" VALUES ('file_s', '{job.tenant_id}', 'student', 's', 'k', 'm', 1, 'h')"
        )
    with queue.sessions.begin() as session:
        keep_student(session, job.params, file_id="file_s", timesteps=(999, 499))
    made = queue.one("SELECT * FROM models WHERE name = 'swift'")
    assert (made.file_id, made.facts["default_steps"], made.facts["default_guidance"]) == ("file_s", 2, 1.0)
    assert made.facts["student"] == {"teacher": "storybook", "timesteps": [999, 499]}
    with queue.sessions() as session, pytest.raises(Exception, match="another distillation"):
        keep_student(session, job.params, file_id="file_s", timesteps=(999,))
