"""Jobs that rest until somebody lets them go on."""

from __future__ import annotations

from datetime import timedelta

import pytest
from sqlalchemy import text

from core.errors import NotFound, NotPausable
from core.jobs.execution import Ending, Return, finish, look, requeue
from core.jobs.recovery import promote, reap
from core.jobs.states import AttemptOutcome, JobState
from core.scheduling.queue import SqlQueue
from tests.integration.jobs.conftest import LEASE


def give_back(queue, job):
    with queue.sessions.begin() as session:
        assert requeue(session, [Return(job.id, job.token, AttemptOutcome.RETURNED, 0.5)]) == {job.id}


@pytest.fixture
def waiting(queue):
    """A tenant and its distillation that waits for nothing but a worker."""
    tenant = queue.tenant()
    job_id, _ = queue.distil(tenant, pairs=0)
    return tenant, job_id


def test_a_queued_job_rests_at_once_and_goes_on_where_it_stood(queue, waiting):
    tenant, job_id = waiting
    paused = queue.pause(tenant, job_id)
    assert (paused.state, paused.pause_requested_at is not None) == ("queued", True)
    queue.maintain()
    assert queue.claim() == []
    assert queue.resume(tenant, job_id).pause_requested_at is None
    queue.maintain()
    assert [job.id for job in queue.claim()] == [job_id]
    verbs = ["queued", "paused", "resumed", "started"]
    assert queue.events(job_id) == [f"distillation.{verb}" for verb in verbs]


def test_a_running_job_is_told_and_rests_once_its_worker_has_given_it_back(queue, waiting):
    tenant, job_id = waiting
    (job,) = queue.claim()
    assert queue.pause(tenant, job_id).state == "running"
    with queue.sessions() as session:
        assert look(session, [job])[job.token].pause_requested
    give_back(queue, job)
    queue.maintain()
    assert queue.claim() == []
    assert (queue.job(job_id).state, queue.job(job_id).attempt) == ("queued", 0)
    queue.resume(tenant, job_id)
    queue.maintain()
    assert [job.id for job in queue.claim()] == [job_id]
    assert queue.events(job_id)[2:] == ["distillation.paused", "distillation.resumed", "distillation.started"]


def test_one_that_is_resumed_before_it_has_stopped_just_goes_on(queue, waiting):
    tenant, job_id = waiting
    (job,) = queue.claim()
    queue.pause(tenant, job_id)
    queue.resume(tenant, job_id)
    give_back(queue, job)
    queue.maintain()
    assert [job.id for job in queue.claim()] == [job_id]


def test_a_paused_job_whose_worker_died_rests_too(queue, waiting, later):
    tenant, job_id = waiting
    queue.claim()
    queue.pause(tenant, job_id)
    with later(LEASE + timedelta(hours=1)) as session:
        reap(session, jitter=lambda: 0.5)
        session.commit()
        assert promote(session) == 0
    assert queue.events(job_id)[-1] == "distillation.paused"
    queue.resume(tenant, job_id)
    with later(LEASE + timedelta(hours=2)) as session:
        assert promote(session) == 1


def test_pausing_a_distillation_rests_its_shards_and_resuming_does_not_free_it_before_they_are_drawn(queue):
    tenant = queue.tenant()
    parent, children = queue.distil(tenant)
    (busy,) = queue.claim()
    queue.pause(tenant, parent)
    assert queue.claim() == []
    give_back(queue, busy)
    queue.maintain()
    assert queue.claim() == []
    queue.resume(tenant, parent)
    queue.maintain()
    drawn = [job for _ in children for job in queue.claim()]
    assert {job.id for job in drawn} == set(children)
    assert queue.claim() == []
    for job in drawn:
        queue.finish(job, file_id="file_x")
    queue.pause(tenant, parent)
    queue.maintain()  # all is drawn, but the distillation rests
    assert queue.claim() == []
    queue.resume(tenant, parent)
    queue.maintain()
    assert [job.id for job in queue.claim()] == [parent]


@pytest.mark.parametrize("is_promoted", [True, False])
def test_a_claim_that_read_the_queue_before_a_pause_and_a_resume_leaves_the_job_its_place(
    queue, waiting, monkeypatch, is_promoted
):
    """The claim saw the queue row that the pause deleted; the row that the promoter made since is not its to delete."""
    tenant, job_id = waiting
    with queue.workers.begin() as connection:  # else the claim holds up the promoter, to look from the first job on
        connection.execute(text("UPDATE tenant_sched SET head_key = (SELECT min(sort_key) FROM ready)"))
    unhurried = SqlQueue.take

    def take(asked, batch, taking):
        monkeypatch.setattr(SqlQueue, "take", unhurried)
        queue.pause(tenant, job_id)
        queue.resume(tenant, job_id)
        if is_promoted:
            queue.maintain()
        taken = unhurried(asked, batch, taking)
        queue.maintain()
        return taken

    monkeypatch.setattr(SqlQueue, "take", take)
    queue.claim()
    queue.maintain()
    assert queue.job(job_id).state == "running" or [job.id for job in queue.claim()] == [job_id]
    assert queue.one("SELECT count(*) AS waiting FROM ready").waiting == 0


def test_asking_twice_changes_nothing(queue, waiting):
    tenant, job_id = waiting
    queue.pause(tenant, job_id)
    queue.pause(tenant, job_id)
    queue.resume(tenant, job_id)
    queue.resume(tenant, job_id)
    assert queue.events(job_id) == [f"distillation.{verb}" for verb in ("queued", "paused", "resumed")]


def test_a_paused_job_can_be_canceled(queue, waiting):
    tenant, job_id = waiting
    queue.pause(tenant, job_id)
    assert queue.cancel(tenant, job_id).state == "canceled"
    queue.maintain()
    assert queue.claim() == []


def test_a_paused_job_may_end_before_it_hears_of_it(queue, waiting):
    tenant, job_id = waiting
    (job,) = queue.claim()
    queue.pause(tenant, job_id)
    with queue.sessions.begin() as session:
        finish(session, [Ending(job.id, job.token, JobState.SUCCEEDED, 1.0, result={})])
    assert queue.job(job_id).pause_requested_at is None
    with pytest.raises(NotPausable, match="already succeeded"):
        queue.pause(tenant, job_id)
    with pytest.raises(NotPausable, match="already succeeded"):
        queue.resume(tenant, job_id)


def test_generations_and_what_belongs_to_others_cannot_be_paused(queue, waiting):
    tenant, job_id = waiting
    (generation,) = queue.submit(tenant)
    with pytest.raises(NotPausable, match="seconds"):
        queue.pause(tenant, generation)
    assert queue.claim()
    with pytest.raises(NotFound):
        queue.pause(queue.tenant("rival"), job_id)
