"""Why jobs wait, as their tenant is told; what they are learned to cost."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import text
from sqlalchemy.orm import Session

from core.jobs import workers
from core.jobs.execution import Ending, finish
from core.jobs.learning import LearnCounts, learn
from core.jobs.outlook import Outlook, Reason, outlook
from core.jobs.reading import get_job
from core.jobs.states import JobState
from core.scheduling import levers
from core.scheduling.estimates import ENOUGH_SAMPLES
from core.tenants.provisioning import create_key
from tests.integration.jobs.conftest import POOL, Queue


def why(queue: Queue, tenant_id: str, job_id: str) -> Outlook:
    async def ask(session: Any) -> Outlook:
        return await outlook(session, await get_job(session, job_id))

    return asyncio.run(queue._as_api(tenant_id, ask))


def turn(queue: Queue, lever: Any, *values: Any, **named: Any) -> None:
    with queue.sessions.begin() as session:
        lever(session, *values, **named)


@pytest.fixture
def worker(queue: Queue) -> None:
    with queue.sessions.begin() as session:
        worker_id = workers.register(session, pool=POOL, host="h", pid=1)
        workers.beat(session, worker_id, state="idle", device=None, warm_models=())


def test_without_a_worker_nothing_starts(queue):
    tenant = queue.tenant()
    (job_id,) = queue.submit(tenant)
    told = why(queue, tenant, job_id)
    assert (told.reason, told.position, told.starts_in) == (Reason.NO_WORKER, 1, None)


def test_the_next_job_is_starting_and_the_one_behind_it_waits_for_it(queue, worker):
    tenant = queue.tenant()
    first, second = queue.submit(tenant, 2)
    assert why(queue, tenant, first).reason is Reason.STARTING
    told = why(queue, tenant, second)
    assert (told.reason, told.position, told.jobs_ahead) == (Reason.BEHIND_OWN_JOBS, 2, 1)
    assert told.starts_in is not None
    assert 0 < told.starts_in[0] < told.starts_in[1]


def test_a_job_behind_other_tenants_is_told_how_many(queue, worker):
    others = [queue.tenant(f"t{number}") for number in range(4)]
    mine = queue.tenant("mine")
    queue.submit(mine, 1, n=16)
    queue.claim()  # mine has had its turn
    for other in others:
        queue.submit(other, 3)
    (job_id,) = queue.submit(mine)
    queue.claim()
    told = why(queue, mine, job_id)
    assert told.reason is Reason.BEHIND_OTHERS
    assert told.tenants_ahead == 4
    assert told.jobs_ahead == 11


def test_more_workers_mean_an_earlier_start(queue, worker):
    tenant = queue.tenant()
    *_, last = queue.submit(tenant, 30)
    alone = why(queue, tenant, last).starts_in
    for pid in range(2, 5):
        with queue.sessions.begin() as session:
            workers.register(session, pool=POOL, host="h", pid=pid)
    together = why(queue, tenant, last).starts_in
    assert alone is not None
    assert together is not None
    assert together[0] < alone[0] / 2


def test_every_lever_is_a_reason(queue, worker):
    tenant = queue.tenant(max_running=1)
    first, second = queue.submit(tenant, 2)
    for lever, values, reason in (
        (levers.pause_pool, (POOL,), Reason.POOL_PAUSED),
        (levers.pause_tenant, (POOL, tenant), Reason.TENANT_PAUSED),
        (levers.pause_model, (queue.model_id,), Reason.MODEL_PAUSED),
    ):
        turn(queue, lever, *values, paused=True)
        assert why(queue, tenant, first).reason is reason
        turn(queue, lever, *values, paused=False)
    queue.claim()
    assert why(queue, tenant, first).reason is Reason.RUNNING
    assert why(queue, tenant, second).reason is Reason.CAP
    queue.cancel(tenant, second)
    assert why(queue, tenant, second).reason is Reason.ENDED


def test_a_job_of_a_full_key_and_one_that_waits_for_others_say_so(queue, worker):
    tenant = queue.tenant()
    with Session(queue.owners) as session, session.begin():
        create_key(session, tenant, "capped", frozenset({"generate"}))
        key = session.scalar(text("UPDATE api_keys SET max_running = 0 RETURNING id"))
    (job_id,) = queue.submit(tenant, api_key_id=key)
    assert why(queue, tenant, job_id).reason is Reason.KEY_CAP
    parent, _ = queue.distil(tenant)
    assert why(queue, tenant, parent).reason is Reason.WAITING_FOR_JOBS
    queue.pause(tenant, parent)
    assert why(queue, tenant, parent).reason is Reason.PAUSED


def test_nothing_of_another_tenants_job_is_told(queue, worker):
    tenant, stranger = queue.tenant(), queue.tenant("stranger")
    (job_id,) = queue.submit(tenant)

    async def ask(session: Any) -> Any:
        return (await session.execute(text("SELECT * FROM queue_outlook(:id)"), {"id": job_id})).all()

    assert asyncio.run(queue._as_api(stranger, ask)) == []
    assert len(asyncio.run(queue._as_api(tenant, ask))) == 1


def test_what_jobs_took_is_what_later_ones_are_charged(queue, later):
    tenant = queue.tenant()
    queue.submit(tenant, ENOUGH_SAMPLES + 1)
    jobs = queue.claim(room=16)
    with queue.sessions.begin() as session:
        finish(session, [Ending(job.id, job.token, JobState.SUCCEEDED, 4.0, result={}) for job in jobs])
    with later(timedelta(minutes=1)) as session, session.begin():
        assert learn(session).costs == ENOUGH_SAMPLES + 1
    with later(timedelta(minutes=1)) as session, session.begin():
        assert learn(session) == LearnCounts()
    (same,) = queue.submit(tenant)
    (bigger,) = queue.submit(tenant, n=4)
    (of_other_size,) = queue.submit(tenant, width=128)
    assert queue.job(same).cost_ms == pytest.approx(4000, rel=0.01)
    assert queue.job(bigger).cost_ms == pytest.approx(16_000, rel=0.01)
    assert queue.job(of_other_size).cost_ms == pytest.approx(4000, rel=0.01)


def test_a_sample_of_starts_is_compared_with_what_was_expected(queue, worker, later):
    tenant = queue.tenant(max_running=64)
    queue.submit(tenant, 40)
    sampled = queue.one("SELECT count(start_estimate_ms) AS jobs FROM jobs").jobs
    assert 0 < sampled < 20
    jobs = [job for _ in range(5) for job in queue.claim(room=8)]
    with queue.sessions.begin() as session:
        finish(session, [Ending(job.id, job.token, JobState.SUCCEEDED, 0.1, result={}) for job in jobs])
    with later(timedelta(minutes=1)) as session, session.begin():
        assert learn(session).starts == sampled
    found = queue.one("SELECT * FROM start_calibrations")
    assert found.samples == sampled
    assert 0 <= found.within_median <= found.within_high <= sampled
