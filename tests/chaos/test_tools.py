"""What the chaos suite is made of does what its reports say: plans, proxies, wrong clocks, and recovery times."""

from __future__ import annotations

import os
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest
from sqlalchemy import URL

from tests.chaos.clock import Clock, build_library
from tests.chaos.faults import Done
from tests.chaos.plan import LASTING, Kind, plan
from tests.chaos.proxy import Network, Proxy, unix
from tests.chaos.recovery import Try, recoveries
from tests.waiting import until


def test_a_seed_means_one_plan():
    assert plan(1, seconds=100, every=5) == plan(1, seconds=100, every=5) != plan(2, seconds=100, every=5)


def test_a_plan_makes_every_kind_equally_often_and_ends_what_it_begins():
    faults = plan(1, seconds=5 * 3 * len(Kind), every=5)
    assert Counter(fault.kind for fault in faults) == dict.fromkeys(Kind, 3)
    assert all((fault.seconds > 0) == (fault.kind in LASTING) for fault in faults)
    assert all(5 * slot <= fault.at < 5 * (slot + 1) for slot, fault in enumerate(faults))


@pytest.fixture
def network() -> Iterator[Network]:
    made = Network()
    yield made
    made.close()


@pytest.fixture
def proxy(network: Network, postgres_url: URL) -> Proxy:
    return network.place(unix(Path(str(postgres_url.query["host"])) / ".s.PGSQL.5432"))


def connect(proxy: Proxy, url: URL) -> psycopg.Connection:
    return psycopg.connect(host="127.0.0.1", port=proxy.port, user=url.username, dbname=url.database)


def test_a_commit_whose_answer_is_lost_stands(proxy: Proxy, postgres_url: URL):
    with connect(proxy, postgres_url) as connection:
        connection.execute("CREATE TABLE IF NOT EXISTS written (at int)")
    cut = connect(proxy, postgres_url)
    cut.execute("INSERT INTO written VALUES (1)")
    proxy.cut_commits(on=True)
    with pytest.raises(psycopg.OperationalError):
        cut.commit()
    proxy.cut_commits(on=False)
    with connect(proxy, postgres_url) as connection:
        assert connection.execute("SELECT at FROM written").fetchall() == [(1,)]
    assert proxy.commits_cut == 1


def test_a_swallowed_connection_is_silent_until_it_is_reset_and_others_are_served(
    network: Network, proxy: Proxy, postgres_url: URL
):
    swallowed = connect(proxy, postgres_url)
    links = proxy.swallow()
    swallowed.pgconn.send_query(b"SELECT 1")
    with connect(proxy, postgres_url) as other:
        assert other.execute("SELECT 2").fetchone() == (2,)
    assert swallowed.pgconn.is_busy()
    network.reset(links)

    def is_broken() -> bool:
        try:
            swallowed.pgconn.consume_input()
        except psycopg.OperationalError:
            return True
        return False

    until(is_broken, seconds=10)


def test_a_wrong_clock_moves_the_time_of_day_alone(tmp_path: Path):
    library = build_library(tmp_path)
    if library is None:
        pytest.skip("there is no C compiler")
    clock = Clock(library, tmp_path / "clock")
    told = "import time; print(time.time(), time.monotonic())"
    before, steady = times(told, clock)
    clock.shift(-7200)
    after, steadier = times(told, clock)
    assert before - 7200 <= after < before - 7100
    assert steady <= steadier < steady + 100


def times(told: str, clock: Clock) -> tuple[float, float]:
    environment = {**os.environ, **clock.environment}
    done = subprocess.run([sys.executable, "-c", told], env=environment, check=True, capture_output=True, text=True)
    time_of_day, monotonic = map(float, done.stdout.split())
    return time_of_day, monotonic


def test_recovery_is_told_from_the_first_thing_that_was_begun_and_done_afterwards():
    fault = Done(Kind.STOP_WORKER, began=100.0, over=115.0)
    accepted = [(99.0, 116.0), (115.5, 117.0), (115.6, 116.5)]
    tries = [
        Try("job_a", 99.0, 112.0, "lost"),
        Try("job_b", 114.0, 116.0, "succeeded"),
        Try("job_a", 116.0, 118.0, "succeeded"),
    ]
    found = recoveries([fault], accepted, tries)[Kind.STOP_WORKER]
    assert (found.accepting, found.working, found.back) == ([1.5], [3.0], [16.0])
