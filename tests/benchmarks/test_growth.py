"""The simulator: its queue decides as the one in Postgres does, and what it says of a day adds up."""

from __future__ import annotations

import random
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from core.scheduling.fairshare import Batch, Priority, Waiting, select_batch
from tests.benchmarks import growth
from tests.benchmarks.growth import Case, measure
from tests.benchmarks.report import Report
from tests.benchmarks.scheduling.backlog import Backlog, claim, finish
from tests.benchmarks.scheduling.memory_queue import MemoryQueue
from tests.benchmarks.scheduling.simulation import DAY, Simulation, World
from tests.stack import TestServers

SMALL = World(gpus=4, tenants=12, jobs=3000, models=3, length=DAY / 2)


def test_the_queue_in_memory_decides_as_the_one_in_postgres(servers: TestServers):
    real, memory, chance = Backlog(servers.new_database()), MemoryQueue(), random.Random(3)
    tenants = real.tenants("t", 6, max_running=10)
    for tenant in tenants:
        memory.join(tenant, cap=10)
        for steps in chance.sample((1, 4, 20), 2):
            real.fill([tenant], 12, steps=steps)
    with real.owner.begin() as connection:
        for row in connection.exec_driver_sql("SELECT * FROM ready ORDER BY sort_key, job_id").mappings():
            named = {name: row[name] for name in ("job_id", "tenant_id", "lane", "model_id", "cost_ms", "sort_key")}
            memory.put(Waiting(**named, waited=timedelta(0)))
    costs = {job_id: job.cost_ms for job_id, (job, _) in memory._jobs.items()}
    held: list[Batch] = []
    for _ in range(40):
        with real.sessions.begin() as session:
            jobs = claim(session, 5)
        batch = select_batch(memory, warm=frozenset(), most=lambda _lane: 5)
        assert [job.id for job in jobs] == ([] if batch is None else [job.job_id for job in batch.jobs])
        if batch is not None:
            memory.take(batch)
            held.append(batch)
        if held and (batch is None or chance.random() < 0.7):
            done = held.pop(0)
            ids = [job.job_id for job in done.jobs]
            with real.sessions.begin() as session:
                tokens = _tokens(real, ids)
                finish(session, tokens, [costs[job.id] / 2000 for job in tokens])
            for job in done.jobs:
                memory.settle(job, costs[job.job_id] / 2)
    real.close()


def _tokens(queue: Backlog, ids: list[str]) -> list[Any]:
    with queue.owner.begin() as connection:
        rows = connection.exec_driver_sql(
            "SELECT id, lease_token AS token FROM jobs WHERE id = ANY (%s) ORDER BY array_position(%s, id)", (ids, ids)
        )
        return list(rows)


def test_a_simulated_day_serves_everything_and_adds_up():
    outcome = Simulation(SMALL).run()
    assert outcome.jobs == SMALL.jobs == sum(map(len, outcome.waits.values()))
    assert outcome.loading_seconds == outcome.loads * SMALL.load_seconds
    assert 0 < outcome.busy_seconds + outcome.loading_seconds <= SMALL.gpus * max(outcome.ended_at, DAY)
    assert all(wait >= 0 for waits in outcome.waits.values() for wait in waits)


def test_the_same_seed_is_the_same_day():
    assert Simulation(SMALL).run() == Simulation(SMALL).run()


def test_an_overloaded_day_is_kinder_to_high_priority():
    crowded = Simulation(World(gpus=2, tenants=6, jobs=2400, models=2, length=DAY / 4)).run()
    assert crowded.wait(0.9, Priority.HIGH) < crowded.wait(0.9, Priority.LOW)


def test_pools_of_models_load_less():
    shared = Simulation(World(gpus=8, tenants=30, jobs=6000, models=8, length=DAY / 2)).run()
    apart = Simulation(
        World(gpus=8, tenants=30, jobs=6000, models=8, pools=4, pools_by_model=True, length=DAY / 2)
    ).run()
    assert apart.loads < shared.loads / 2


def test_a_table_has_a_row_for_every_case():
    report = Report()
    table = measure(report, [Case("small", SMALL)], "a table")
    assert table.count("\n| small |") == 1
    assert report.figures["share of GPU time at work: small"] > 0


@pytest.mark.parametrize("name", ["sizes", "choices"])
def test_the_page_has_a_place_for_every_table(name: str):
    assert f"{{{name}}}" in growth.TEXT.read_text()


def test_the_page_is_made_by_one_command(tmp_path: Path):
    page = tmp_path / "growth.md"
    growth.main(["--quick", "--page", str(page)])
    assert "| one pool |" in page.read_text()
