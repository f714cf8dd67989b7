"""Measures the fair share on a real Postgres: floods, unequal costs, weights, caps, and levers turned meanwhile.

Jobs are claimed and finished by the workers' own code; only the work is left out, and its time is the database's clock,
moved on from one event to the next.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import mean
from typing import Final

from core.jobs.execution import ClaimedJob
from core.scheduling import levers
from tests.benchmarks.report import Report, argument_parser, print_table
from tests.benchmarks.scheduling.backlog import Backlog, claim
from tests.benchmarks.scheduling.fleet import Fleet
from tests.serving import POOL
from tests.stack import TestServers, run_servers

ROOM: Final = 8


@dataclass(frozen=True)
class Size:
    """How much is measured."""

    flood: int = 50_000
    quiet: int = 200
    workers: int = 4
    rounds: int = 200  # service times of the comparisons of shares


QUICK = Size(flood=400, quiet=20, workers=2, rounds=12)


def jain(values: Sequence[float]) -> float:
    """Jain's fairness index: 1 where all have the same, 1/n where one has everything (Jain, Chiu, Hawe 1984)."""
    return sum(values) ** 2 / (len(values) * sum(value * value for value in values))


def measure_flood(report: Report, queue: Backlog, size: Size) -> None:
    """One tenant has tens of thousands of older jobs that fit into every batch; the others come later, with a few."""
    (flood,) = queue.tenants("flood", 1, max_running=10_000)
    queue.fill([flood], size.flood, age="1 hour")
    fleet = Fleet(queue, size.workers, ROOM, lambda _job: 1.0 / ROOM)  # a full batch takes one service time
    for _ in fleet.run(2.0):
        pass
    quiet = queue.tenants("quiet", size.quiet)
    queue.fill(quiet, 5)
    came_at, left, first = fleet.now, size.flood - sum(fleet.batches), dict[str, float]()
    for started in fleet.run(came_at + 2 * (size.quiet / size.workers + 2)):
        for job in started.jobs:
            first.setdefault(job.tenant_id, started.at - came_at)
    fleet.drain()
    waits = [first.get(tenant, float("inf")) for tenant in quiet]
    slots = size.workers * ROOM
    bound = (size.quiet + 1) / slots + 1
    fill = mean(fleet.batches) / ROOM
    report.add("service times until the last quiet tenant's first start", max(waits))
    report.add("service times, mean over quiet tenants", mean(waits))
    report.add("service times first in, first out would take", left / slots)
    report.expect("service times until the last quiet tenant's first start", "<=", bound)
    report.add("batch fill beside a flood", fill)
    report.expect("batch fill beside a flood", ">=", 0.9)
    print_table(
        f"{size.quiet} quiet tenants come after {size.flood} jobs of one other; {slots} slots; in service times",
        ("first start", "service times"),
        [("mean", mean(waits)), ("last", max(waits)), ("bound: tenants / slots + 1", bound)],
    )


def measure_costs(report: Report, queue: Backlog, size: Size) -> None:
    """Tenants whose jobs are of one to sixteen pictures, estimated wrongly by up to a half, all always backlogged."""
    tenants = queue.tenants("cost", 16)
    pictures = {tenant: 1 + number for number, tenant in enumerate(tenants)}
    for tenant, n in pictures.items():
        queue.fill([tenant], 40 * size.rounds // n + ROOM * size.workers, n=n)
    noise = random.Random(1)
    fleet = Fleet(queue, size.workers, ROOM, lambda job: _pictures(job) * noise.uniform(0.5, 1.5) / ROOM)
    for _ in fleet.run(8.0 * size.rounds):
        pass
    fleet.drain()
    index, fill = jain([fleet.served[tenant] for tenant in tenants]), mean(fleet.batches) / ROOM
    report.add("Jain index over GPU-seconds, unequal costs", index)
    report.expect("Jain index over GPU-seconds, unequal costs", ">=", 0.95)
    report.add("batch fill with unequal costs", fill)
    report.expect("batch fill with unequal costs", ">=", 0.9)
    print_table(
        "GPU-seconds of tenants whose jobs are of so many pictures",
        ("pictures a job", "GPU-seconds"),
        [(str(pictures[tenant]), fleet.served[tenant]) for tenant in tenants],
    )


def _pictures(job: ClaimedJob) -> int:
    return int(getattr(job.params, "n", 1))


def measure_weights(report: Report, queue: Backlog, size: Size) -> None:
    """Three tenants of weights 1, 2 and 4, always backlogged."""
    weights = {1: 100, 2: 200, 4: 400}
    tenants = {share: queue.tenants(f"w{share}", 1, weight=weight)[0] for share, weight in weights.items()}
    queue.fill(list(tenants.values()), 10 * ROOM * size.rounds)
    fleet = Fleet(queue, size.workers, ROOM, lambda _job: 1.0 / ROOM)
    for _ in fleet.run(float(size.rounds)):
        pass
    fleet.drain()
    unit = sum(fleet.served[tenant] for tenant in tenants.values()) / sum(weights)
    shares = {share: fleet.served[tenant] / unit for share, tenant in tenants.items()}
    worst = max(abs(got / share - 1) for share, got in shares.items())
    report.add("largest error of shares by weights 1:2:4", worst)
    report.expect("largest error of shares by weights 1:2:4", "<=", 0.05)
    print_table("Shares by weight", ("weight", "share"), [(str(share), got) for share, got in shares.items()])


def measure_levers(report: Report, queue: Backlog, size: Size) -> None:
    """Caps hold, and neither a pause that ended nor a raised cap nor a refund leaves anybody behind or ahead."""
    tenants = queue.tenants("lever", 6, max_running=ROOM)
    paused, capped, refunded, *others = tenants
    queue.fill(tenants, 6 * ROOM * size.rounds)
    fleet = Fleet(queue, size.workers, ROOM, lambda job: (0.01 if job.tenant_id == refunded else 1.0) / ROOM)
    with queue.sessions.begin() as session:
        levers.configure_tenant(session, POOL, capped, max_running=1)
        levers.pause_tenant(session, POOL, paused, paused=True)
    _run(fleet, size.rounds / 3)
    over = max(fleet.most_running[tenant] - (1 if tenant == capped else ROOM) for tenant in tenants)
    held = fleet.served[paused]
    with queue.sessions.begin() as session:
        levers.configure_tenant(session, POOL, capped, max_running=ROOM)
        levers.pause_tenant(session, POOL, paused, paused=False)
    fleet.drain()
    before = dict(fleet.served)
    _run(fleet, size.rounds)
    fleet.drain()
    gained = {tenant: fleet.served[tenant] - before.get(tenant, 0.0) for tenant in (paused, capped, *others)}
    behind = min(gained[paused], gained[capped]) / mean(gained[tenant] for tenant in others)
    report.add("jobs over a cap", float(max(over, 0)))
    report.expect("jobs over a cap", "<=", 0)
    report.add("GPU-seconds of a paused tenant", held)
    report.expect("GPU-seconds of a paused tenant", "<=", 0)
    report.add("share after a pause or a raised cap, over the others'", behind)
    report.expect("share after a pause or a raised cap, over the others'", ">=", 0.9)
    report.add("refunded tenant's time behind the pool's", _time_behind(queue, refunded))
    report.expect("refunded tenant's time behind the pool's", "<=", 0)
    print_table(
        "GPU-seconds after a pause was ended and a cap was raised",
        ("tenant", "GPU-seconds"),
        [("was paused", gained[paused]), ("was capped", gained[capped]), *(("other", gained[t]) for t in others)],
    )


def _run(fleet: Fleet, service_times: float) -> None:
    for _ in fleet.run(fleet.now + service_times):
        pass


def _time_behind(queue: Backlog, tenant_id: str) -> float:
    """How far a standing is behind the pool's time once the next claim has folded in what was noted."""
    with queue.sessions.begin() as session:
        claim(session, 1)
    row = queue.one(
        "SELECT p.vtime - s.vtime AS behind FROM pools p JOIN tenant_sched s ON s.pool = p.name"
        " WHERE s.tenant_id = :id",
        id=tenant_id,
    )
    return max(0.0, float(row["behind"]))


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure everything, each part on a database of its own, and say what was met."""
    given = argument_parser("fairness", __doc__).parse_args(arguments)
    report = Report()
    with run_servers() as servers:
        measure(report, servers, QUICK if given.quick else Size())
    report.finish(given.json)


def measure(report: Report, servers: TestServers, size: Size) -> None:
    """Measure every part."""
    for part in (measure_flood, measure_costs, measure_weights, measure_levers):
        queue = Backlog(servers.new_database())
        try:
            part(report, queue, size)
        finally:
            queue.close()


if __name__ == "__main__":
    main()
