from __future__ import annotations

from datetime import timedelta

import pytest
from kombu.exceptions import OperationalError
from sqlalchemy import text

from core.embedded.valkey import Valkey
from core.jobs import execution
from core.jobs.execution import Ending
from core.jobs.states import JobState
from tests.integration.maintain.conftest import Doorbells
from workers.maintain.ringer import Ringer

LOST = timedelta(seconds=5.1)


@pytest.fixture
def ringer(queue, doorbells):
    return Ringer(queue.sessions, doorbells.ring)


def finish(queue, jobs):
    with queue.sessions.begin() as session:
        execution.finish(session, [Ending(job.id, job.token, JobState.SUCCEEDED, 0.1, result={}) for job in jobs])


def test_every_idle_worker_of_a_pool_with_work_is_rung_once(queue, crew, doorbells, ringer):
    crew.hire()
    crew.hire()
    queue.submit(queue.tenant())
    assert ringer.run_once().rung == 2
    assert [ringer.run_once().rung for _ in range(3)] == [0, 0, 0]
    assert doorbells.heard() == 2


def test_without_work_nobody_is_rung(queue, crew, doorbells, ringer):
    crew.hire()
    queue.tenant()
    assert ringer.run_once().rung == 0
    assert doorbells.heard() == 0


@pytest.mark.parametrize("state", ["starting", "busy", "draining", "stopped"])
def test_a_worker_that_does_not_wait_is_not_rung(queue, crew, ringer, state):
    crew.hire(state)
    queue.submit(queue.tenant())
    assert ringer.run_once().rung == 0


def test_a_worker_that_has_been_silent_is_not_rung(queue, crew, clock, ringer):
    crew.hire()
    queue.submit(queue.tenant())
    clock.advance(timedelta(seconds=31))
    assert ringer.run_once().rung == 0


def test_a_worker_of_another_pool_sleeps_on(queue, crew, doorbells, ringer):
    with queue.sessions.begin() as session:
        session.execute(text("INSERT INTO pools (name) VALUES ('other')"))
    crew.hire(pool="other")
    queue.submit(queue.tenant())
    assert ringer.run_once().rung == 0
    assert doorbells.heard("other") == 0


def test_a_worker_that_becomes_idle_is_rung_alone(queue, crew, ringer):
    crew.hire()
    busy = crew.hire("busy")
    queue.submit(queue.tenant())
    assert ringer.run_once().rung == 1
    crew.say(busy, "idle")
    assert ringer.run_once().rung == 1


def test_work_that_nobody_may_claim_wakes_nobody_until_a_place_is_free(queue, crew, ringer):
    tenant = queue.tenant(max_running=1)
    queue.submit(tenant, 2)
    running = queue.claim()
    worker = crew.hire()
    assert ringer.run_once().rung == 0
    finish(queue, running)
    assert ringer.run_once().rung == 1
    crew.say(worker, "idle")
    queue.claim()
    assert ringer.run_once().rung == 0


def test_a_worker_that_heard_its_doorbell_in_vain_is_rung_for_the_next_job(queue, crew, ringer):
    worker = crew.hire()
    tenant = queue.tenant()
    queue.submit(tenant)
    assert ringer.run_once().rung == 1
    queue.claim()  # somebody else was faster
    crew.say(worker, "idle")
    assert ringer.run_once().rung == 0
    queue.submit(tenant)
    assert ringer.run_once().rung == 1


def test_a_doorbell_that_was_lost_is_rung_again(queue, crew, clock, doorbells, ringer):
    crew.hire()
    queue.submit(queue.tenant())
    ringer.run_once()
    doorbells.server.flushall()
    assert ringer.run_once().rung == 0
    clock.advance(LOST)
    assert ringer.run_once().rung == 1
    assert doorbells.heard() == 1


def test_a_broker_that_is_away_is_rung_when_it_is_back(queue, crew, tmp_path):
    crew.hire()
    queue.submit(queue.tenant())
    broker = Valkey(tmp_path / "valkey", password="p", log=tmp_path / "log")
    broker.start()
    doorbells = Doorbells(broker.url)
    ringer = Ringer(queue.sessions, doorbells.ring)
    try:
        doorbells.ring("elsewhere", 1)  # so that there is a connection to be broken
        broker.process.kill()
        with pytest.raises(OperationalError):
            ringer.run_once()
        broker.start()
        assert ringer.run_once().rung == 1
        assert doorbells.heard() == 1
    finally:
        doorbells.close()
        broker.process.kill()
