"""What operators turn holds from the next claim on, and leaves nobody behind."""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import Any

import pytest
from sqlalchemy import text
from sqlalchemy.orm import Session

from core.errors import NotFound, NotMovable
from core.jobs import workers
from core.jobs.execution import Ending, finish
from core.jobs.recovery import admit, promote
from core.jobs.states import JobState
from core.scheduling import levers
from core.scheduling.fairshare import Priority
from core.tenants.provisioning import create_key
from tests.integration.jobs.conftest import POOL, Queue


def turn(queue: Queue, lever: Any, *values: Any, **named: Any) -> None:
    with queue.sessions.begin() as session:
        lever(session, *values, **named)


def finish_all(queue: Queue, jobs: list[Any], gpu_seconds: float = 1.0) -> None:
    with queue.sessions.begin() as session:
        finish(session, [Ending(job.id, job.token, JobState.SUCCEEDED, gpu_seconds, result={}) for job in jobs])


def idle_workers(queue: Queue) -> int:
    with queue.sessions.begin() as session:
        return len(workers.idle_with_work(session))


@pytest.fixture
def idle(queue: Queue) -> None:
    with queue.sessions.begin() as session:
        worker_id = workers.register(session, pool=POOL, host="h", pid=1)
        workers.beat(session, worker_id, state="idle", device=None, warm_models=())


def test_a_paused_tenant_is_passed_over_and_runs_again_when_it_is_resumed(queue, idle):
    first, second = queue.tenant("first"), queue.tenant("second")
    queue.submit(first, 30)
    queue.submit(second, 30)
    finish_all(queue, queue.claim())
    turn(queue, levers.pause_tenant, POOL, first, paused=True)
    for _ in range(10):
        (job,) = queue.claim()
        assert job.tenant_id == second
        finish_all(queue, [job])
    turn(queue, levers.pause_tenant, POOL, first, paused=False)
    assert idle_workers(queue) == 1
    served: Counter[str] = Counter()
    for _ in range(10):
        jobs = queue.claim()
        served[jobs[0].tenant_id] += 1
        finish_all(queue, jobs)
    assert 4 <= served[first] <= 6  # neither left behind nor paid back


def test_nothing_is_claimed_in_a_paused_pool(queue, idle):
    queue.submit(queue.tenant(), 2)
    turn(queue, levers.pause_pool, POOL, paused=True)
    assert queue.claim() == []
    assert idle_workers(queue) == 0
    turn(queue, levers.pause_pool, POOL, paused=False)
    assert idle_workers(queue) == 1
    assert len(queue.claim()) == 1


def test_jobs_of_a_paused_model_wait_and_hold_up_nobody(queue, idle):
    tenant, other = queue.tenant(), queue.tenant("other")
    with queue.owners.begin() as connection:
        connection.exec_driver_sql(
            "INSERT INTO models (id, name, family, location, facts) VALUES ('mdl_other', 'other', 'f', 'l', '{}')"
        )
    (held,) = queue.submit(tenant, model_id="mdl_other")
    (theirs,) = queue.submit(other, model_id="mdl_other")
    (mine,) = queue.submit(tenant)
    turn(queue, levers.pause_model, "mdl_other", paused=True)
    assert [job.id for job in queue.claim(room=8)] == [mine]
    assert queue.claim() == []
    assert idle_workers(queue) == 0
    turn(queue, levers.pause_model, "mdl_other", paused=False)
    assert idle_workers(queue) == 1
    assert {job.id for job in queue.claim(room=8)} == {held, theirs}


def test_a_raised_cap_lets_more_run_at_once(queue, idle):
    tenant = queue.tenant(max_running=1)
    queue.submit(tenant, 3)
    queue.claim()
    assert queue.claim() == []
    assert idle_workers(queue) == 0
    turn(queue, levers.configure_tenant, POOL, tenant, max_running=2)
    assert idle_workers(queue) == 1
    assert len(queue.claim(room=8)) == 1


def test_a_lowered_cap_waits_for_what_runs(queue):
    tenant = queue.tenant(max_running=4)
    queue.submit(tenant, 8)
    running = queue.claim(room=4)
    turn(queue, levers.configure_tenant, POOL, tenant, max_running=1)
    finish_all(queue, running[:3])
    assert queue.claim() == []
    finish_all(queue, running[3:])
    assert len(queue.claim(room=8)) == 1


def test_a_weight_holds_from_the_next_claim_on(queue):
    heavy, light = queue.tenant("heavy"), queue.tenant("light")
    queue.submit(heavy, 40)
    queue.submit(light, 40)
    turn(queue, levers.configure_tenant, POOL, heavy, weight=300)
    served: Counter[str] = Counter()
    for _ in range(40):
        jobs = queue.claim()
        served[jobs[0].tenant_id] += 1
        finish_all(queue, jobs)
    assert served[heavy] == pytest.approx(30, abs=2)


def test_a_refund_never_reaches_behind_the_pools_time(queue):
    overcharged, steady = queue.tenant("overcharged"), queue.tenant("steady")
    queue.submit(overcharged, 3, n=16, steps=200)
    queue.submit(steady, 40)
    first = queue.claim()
    for _ in range(20):
        finish_all(queue, queue.claim())
    finish_all(queue, first, gpu_seconds=0.0)
    queue.claim()
    vtime, standing = queue.one(
        "SELECT p.vtime, s.vtime FROM pools p JOIN tenant_sched s ON s.pool = p.name WHERE s.tenant_id = :id",
        id=overcharged,
    )
    assert standing >= vtime


def test_a_high_priority_job_overtakes_its_tenants_others_and_nobody_elses(queue):
    mine, theirs = queue.tenant("mine"), queue.tenant("theirs")
    slow = queue.submit(mine, 3)
    queue.submit(theirs, 3)
    (urgent,) = queue.submit(mine, priority=Priority.HIGH)
    claimed = [queue.claim()[0] for _ in range(4)]
    assert [job.id for job in claimed if job.tenant_id == mine] == [urgent, slow[0]]


def test_a_queued_job_is_moved_to_another_class(queue):
    ids = queue.submit(queue.tenant(), 3)
    queue.claim()  # the queue is no more looked at from its beginning
    turn(queue, levers.move_job, ids[2], Priority.HIGH)
    assert queue.job(ids[2]).priority == 1
    assert [job.id for job in queue.claim()] == [ids[2]]
    with pytest.raises(NotMovable):
        turn(queue, levers.move_job, ids[2], Priority.LOW)


def test_a_job_that_sorts_before_all_that_were_known_is_found(queue):
    tenant = queue.tenant()
    queue.submit(tenant, 2)
    queue.claim()
    assert queue.one("SELECT head_key FROM tenant_sched").head_key > 0
    (urgent,) = queue.submit(tenant, priority=Priority.HIGH)
    assert [job.id for job in queue.claim()] == [urgent]


@pytest.fixture
def capped(queue: Queue) -> tuple[str, str]:
    """A tenant, and a key of it that may have two jobs running."""
    tenant = queue.tenant()
    with Session(queue.owners) as session, session.begin():
        create_key(session, tenant, "capped", frozenset({"generate"}))
        key = session.scalar(text("UPDATE api_keys SET max_running = 2 RETURNING id"))
    assert isinstance(key, str)
    return tenant, key


def let_in(queue: Queue) -> None:
    with queue.sessions.begin() as session:
        admit(session)
    with queue.sessions.begin() as session:
        promote(session)


def test_a_keys_cap_holds_and_its_backlog_holds_up_no_other_key(queue, capped):
    tenant, key = capped
    ids = queue.submit(tenant, 20, api_key_id=key)
    (other,) = queue.submit(tenant)
    let_in(queue)
    let_in(queue)
    running = queue.claim(room=16)
    assert {job.id for job in running} == {*ids[:2], other}
    finish_all(queue, [job for job in running if job.id == ids[0]])
    let_in(queue)
    assert [job.id for job in queue.claim(room=16)] == [ids[2]]


def test_a_key_that_is_capped_late_keeps_what_runs_and_recalls_what_waits(queue, capped):
    tenant, key = capped
    turn(queue, levers.cap_key, key, None)
    queue.submit(tenant, 6, api_key_id=key)
    assert len(queue.claim(room=3)) == 3
    turn(queue, levers.cap_key, key, 2)
    let_in(queue)
    assert queue.claim(room=16) == []
    turn(queue, levers.cap_key, key, 4)
    let_in(queue)
    assert len(queue.claim(room=16)) == 1
    turn(queue, levers.cap_key, key, None)
    let_in(queue)
    assert len(queue.claim(room=16)) == 2


def test_a_canceled_or_retried_job_keeps_the_keys_count_right(queue, capped):
    tenant, key = capped
    ids = queue.submit(tenant, 4, api_key_id=key)
    queue.cancel(tenant, ids[3])
    let_in(queue)
    queue.cancel(tenant, ids[0])  # it had a place
    let_in(queue)
    assert {job.id for job in queue.claim(room=16)} == {ids[1], ids[2]}
    assert queue.one("SELECT count(*) FILTER (WHERE state = 'running') AS running FROM jobs").running == 2


@pytest.mark.parametrize(
    "turned",
    [
        lambda session: levers.configure_tenant(session, POOL, "ten_x", weight=1),
        lambda session: levers.pause_pool(session, "nowhere", paused=True),
        lambda session: levers.pause_model(session, "mdl_x", paused=True),
        lambda session: levers.cap_key(session, "key_x", 1),
    ],
)
def test_what_is_not_there_cannot_be_turned(queue, turned):
    with pytest.raises(NotFound), queue.sessions.begin() as session:
        turned(session)


def test_levers_may_be_turned_while_jobs_are_claimed(queue):
    tenant = queue.tenant()
    ids = queue.submit(tenant, 40)

    async def turn_often() -> None:
        for weight in range(1, 30):
            await asyncio.to_thread(turn, queue, levers.configure_tenant, POOL, tenant, weight=weight)

    async def claim_all() -> list[str]:
        taken: list[str] = []
        while jobs := await asyncio.to_thread(queue.claim, 2):
            taken += [job.id for job in jobs]
            await asyncio.to_thread(finish_all, queue, jobs)
        return taken

    async def both() -> list[str]:
        return (await asyncio.gather(claim_all(), turn_often()))[0]

    assert asyncio.run(both()) == ids
