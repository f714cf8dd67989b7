from __future__ import annotations

import threading
from collections import Counter
from typing import Any

import pytest
from psycopg.types.json import Jsonb
from sqlalchemy import insert, text

from core.db.pipeline import BY_INDEX, exchange
from core.jobs import statements as job_statements
from core.jobs.execution import Ending, finish
from core.jobs.models import Ready
from core.jobs.states import JobState
from core.scheduling import statements
from core.scheduling.queue import SqlQueue
from tests.integration.jobs.conftest import LEASE

SUCCESS: dict[str, Any] = {"images": []}


def finish_all(queue, jobs, *, gpu_seconds=0.1):
    endings = [Ending(job.id, job.token, JobState.SUCCEEDED, gpu_seconds, result=SUCCESS) for job in jobs]
    with queue.sessions.begin() as session:
        return finish(session, endings)


def test_a_claim_takes_the_job_under_a_token_and_counts_the_attempt(queue):
    tenant = queue.tenant()
    (job_id,) = queue.submit(tenant)
    (claimed,) = queue.claim()
    row = queue.job(job_id)
    assert (row.state, row.attempt, row.lease_token, row.worker_id) == ("running", 1, claimed.token, "wrk_1")
    assert claimed.params.prompt == "a cat"
    assert queue.column("SELECT job_id FROM ready") == []
    assert queue.events(job_id) == ["generation.queued", "generation.started"]


def test_an_empty_queue_yields_nothing(queue):
    queue.tenant()
    assert queue.claim() == []


def test_jobs_of_one_tenant_come_in_order(queue):
    ids = queue.submit(queue.tenant(), 3)
    assert [queue.claim()[0].id for _ in ids] == ids


def test_a_batch_mixes_tenants_but_not_sizes(queue):
    first, second = queue.tenant("first"), queue.tenant("second")
    mine, theirs = queue.submit(first, 2), queue.submit(second, 2)
    queue.submit(second, 1, width=128)
    batch = queue.claim(room=8)
    assert Counter(job.tenant_id for job in batch) == {first: 2, second: 2}
    assert {job.id for job in batch} == {*mine, *theirs}


def test_a_quiet_tenant_is_next_however_long_the_flood(queue):
    flood, quiet = queue.tenant("flood"), queue.tenant("quiet")
    queue.submit(flood, 40)
    finish_all(queue, queue.claim())
    (job_id,) = queue.submit(quiet)
    batches = [queue.claim(room=4) for _ in range(2)]
    assert job_id in {job.id for job in batches[0]}


def test_shares_follow_the_weights(queue):
    heavy, light = queue.tenant("heavy", weight=300), queue.tenant("light", weight=100)
    queue.submit(heavy, 40)
    queue.submit(light, 40)
    served: Counter[str] = Counter()
    for _ in range(40):
        jobs = queue.claim()
        served[jobs[0].tenant_id] += 1
        finish_all(queue, jobs, gpu_seconds=1.0)
    assert served[heavy] == pytest.approx(30, abs=2)


def test_an_idle_tenant_earns_no_credit(queue):
    busy, idle = queue.tenant("busy"), queue.tenant("idle")
    queue.submit(busy, 30)
    for _ in range(10):
        finish_all(queue, queue.claim(), gpu_seconds=1.0)
    queue.submit(idle, 20)
    served: Counter[str] = Counter()
    for _ in range(10):
        jobs = queue.claim()
        served[jobs[0].tenant_id] += 1
        finish_all(queue, jobs, gpu_seconds=1.0)
    assert served[idle] <= 6


def test_a_cap_holds_until_a_job_ends(queue):
    capped = queue.tenant(max_running=2)
    queue.submit(capped, 3)
    running = queue.claim(room=8)
    assert len(running) == 2
    assert queue.claim() == []
    finish_all(queue, running[:1])
    assert len(queue.claim(room=8)) == 1


def test_a_tenant_let_sleep_is_woken_by_its_next_job(queue):
    tenant = queue.tenant()
    queue.submit(tenant)
    finish_all(queue, queue.claim())
    assert queue.claim() == []
    assert queue.one("SELECT active FROM tenant_sched").active is False
    (job_id,) = queue.submit(tenant)
    assert [job.id for job in queue.claim()] == [job_id]


def test_a_tenant_whose_next_job_is_just_being_written_holds_up_nobody_and_stays_awake(queue):
    first, second = queue.tenant("first"), queue.tenant("second")
    queue.submit(first)
    queue.submit(second, n=16, steps=200)
    assert len([*queue.claim(), *queue.claim()]) == 2  # the first now has less virtual time, and nothing queued
    (theirs,) = queue.submit(second)
    (mine,) = queue.submit(first)
    row = queue.one("DELETE FROM ready WHERE job_id = :id RETURNING *", id=mine)._asdict()
    with queue.owners.connect() as submitting:
        submitting.execute(insert(Ready).values(row))
        assert [job.id for job in queue.claim(room=4)] == [theirs]
        assert queue.claim() == []
        submitting.commit()
    assert [job.id for job in queue.claim()] == [mine]


def test_a_tenant_whose_next_job_was_written_while_it_was_found_without_work_is_not_left_behind(queue, monkeypatch):
    first, second = queue.tenant("first"), queue.tenant("second")
    queue.submit(first)
    queue.submit(second, n=16, steps=200)
    assert len([*queue.claim(), *queue.claim()]) == 2  # the first now has less virtual time, and nothing queued
    (theirs,) = queue.submit(second)
    mine: list[str] = []

    def hold(this, share):
        if share.tenant_id == first and not mine:
            mine.extend(queue.submit(first))
        return held(this, share)

    held = SqlQueue._hold
    monkeypatch.setattr(SqlQueue, "_hold", hold)
    assert [job.id for job in queue.claim(room=4)] == [theirs]
    assert [job.id for job in queue.claim()] == mine != []


@pytest.mark.parametrize("statement", [statements.UNQUEUE, statements.DEQUEUE])
def test_jobs_are_taken_out_of_the_queue_by_their_ids_alone(queue, statement):
    with queue.workers.begin() as connection:
        connection.execute(text("SET LOCAL enable_seqscan = off"))  # a small table is read whole
        plan = connection.execute(text(f"EXPLAIN {statement.text}"), {"ids": ["job_1"]}).scalars().all()
    assert any("ix_ready_job" in line for line in plan)


@pytest.mark.parametrize("name", ["RENEW", "LOOK", "HOLD", "FINISH", "REQUEUE"])
def test_running_jobs_are_found_by_their_ids_however_many_have_run(queue, name):
    """The index of leases holds all that have ended since it was last vacuumed."""
    values = {"ids": ["job_1"], "tokens": [1], "items": Jsonb([]), "lease": LEASE, "rest": LEASE}
    asked = text(f"EXPLAIN {getattr(job_statements, name).text}")
    with queue.sessions.begin() as session:
        _, plan = exchange(session, BY_INDEX, (asked, values))
    lines = [row["QUERY PLAN"] for row in plan]
    assert any("pk_jobs on jobs" in line for line in lines)
    assert not any("ix_jobs_leased" in line for line in lines)


def test_a_warm_model_is_preferred_within_a_tenant(queue):
    tenant = queue.tenant()
    with queue.owners.begin() as connection:
        connection.exec_driver_sql(
            "INSERT INTO models (id, name, family, location, facts) VALUES ('mdl_other', 'other', 'f', 'l', '{}')"
        )
    queue.submit(tenant)
    (other,) = queue.submit(tenant, model_id="mdl_other")
    assert [job.id for job in queue.claim(warm=frozenset({"mdl_other"}))] == [other]


def test_many_workers_never_take_one_job_twice(queue):
    tenants = [queue.tenant(f"t{n}") for n in range(4)]
    ids = {job_id for tenant in tenants for job_id in queue.submit(tenant, 15)}
    taken: list[str] = []

    def work(name):
        while jobs := queue.claim(room=3, worker=name):
            taken.extend(job.id for job in jobs)
            finish_all(queue, jobs)

    threads = [threading.Thread(target=work, args=(f"wrk_{n}",)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert Counter(taken) == Counter(ids)
    queue.claim()
    assert queue.column("SELECT running FROM tenant_sched") == [0, 0, 0, 0]
