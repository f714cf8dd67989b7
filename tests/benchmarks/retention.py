"""Measures what throwing away old jobs costs those that are claimed meanwhile: a million jobs that ended long ago.

Claims and finishes go on, a batch after the other; by turns maintenance's cleaner works in a process of its own, or
rests. Afterwards it goes on alone until nothing old is left.
"""

from __future__ import annotations

import multiprocessing
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing.synchronize import Event
from statistics import median
from typing import Any, Final

from sqlalchemy import text
from sqlalchemy.orm import sessionmaker

from core.config import Settings
from core.db.engine import sync_engine
from core.storage.s3 import ObjectStore
from tests.benchmarks.dispatch import Ground, durable_ground
from tests.benchmarks.report import Report, argument_parser, print_table
from tests.benchmarks.scheduling.backlog import Backlog, claim, finish
from tests.serving import POOL
from tests.waiting import until
from workers.maintain.cleaner import Cleaner, Kept

_BATCH: Final = 8
_KEPT_DAYS: Final = 90
_REST: Final = 0.01  # seconds between batches: a worker has something to do with them
_DONE_WITHIN: Final = 3600.0

# As finished generations leave them: each job with an attempt and three events.
_OLD: Final = text("""
    WITH made AS (
        INSERT INTO jobs (id, tenant_id, kind, pool, lane, model_id, cost_ms, params, max_attempts, sort_key,
            created_at, state, attempt, started_at, finished_at, result, event_sequence, gpu_seconds)
        SELECT 'job_old_' || t.id || lpad(k::text, 8, '0'), t.id, 'generation', :pool, 'generation:x', :model_id, 100,
            jsonb_build_object('prompt', 'a cat'), 3, k, w.at, 'succeeded', 1, w.at, w.at, '{"images": []}', 3, 1
        FROM unnest(CAST(:ids AS text[])) AS t(id), generate_series(CAST(:first AS int), CAST(:last AS int)) k,
            LATERAL (SELECT lockstep_now() - interval '200 days' + k * interval '1 second' AS at) w
        RETURNING id, tenant_id, created_at),
    tried AS (
        INSERT INTO job_attempts (token, job_id, tenant_id, attempt, worker_id, started_at, ended_at, outcome)
        SELECT nextval('fence'), id, tenant_id, 1, 'wrk_0', created_at, created_at, 'succeeded' FROM made)
    INSERT INTO events (id, tenant_id, job_id, sequence, type, data, created_at)
    SELECT 'evt_' || substr(id, 5) || n, tenant_id, id, n,
        'generation.' || (ARRAY['queued', 'started', 'succeeded'])[n], jsonb_build_object('id', id), created_at
    FROM made, generate_series(1, 3) n
""")


@dataclass(frozen=True)
class Size:
    """How much is measured."""

    tenants: int = 1000
    old: int = 1000  # jobs of each that ended long ago
    rounds: int = 10
    claims: int = 100  # batches of a round with the cleaner, and as many without


QUICK = Size(tenants=20, old=200, rounds=2, claims=20)


@dataclass(frozen=True)
class Shift:
    """A cleaner in a process of its own, which works while it is told to."""

    is_up: Event
    works: Event
    is_done: Event


@contextmanager
def cleaner(settings: Settings) -> Iterator[Shift]:
    """Have a cleaner at hand."""
    context = multiprocessing.get_context("spawn")
    shift = Shift(context.Event(), context.Event(), context.Event())
    process = context.Process(target=_clean, args=(settings, shift), daemon=True)
    process.start()
    try:
        until(shift.is_up.is_set, seconds=60)
        yield shift
    finally:
        process.terminate()
        process.join()


def _clean(settings: Settings, shift: Shift) -> None:
    engine = sync_engine(settings.worker_dsn)
    store = ObjectStore.from_settings(settings)

    def rest(seconds: float) -> None:
        time.sleep(seconds)
        shift.works.wait()

    made = Cleaner(sessionmaker(engine), store, Kept(_KEPT_DAYS, _KEPT_DAYS, 0), sleep=rest)
    shift.is_up.set()
    while True:
        shift.works.wait()
        counts = made.run_once()
        if counts.jobs == counts.events == 0:
            shift.is_done.set()


def fill(queue: Backlog, tenants: Sequence[str], each: int) -> None:
    """Leave so many jobs of each tenant that ended long ago."""
    for first in range(1, each + 1, 100):
        values: dict[str, Any] = {"ids": list(tenants), "pool": POOL, "model_id": queue.model_id}
        with queue.owner.begin() as connection:
            connection.execute(_OLD, {**values, "first": first, "last": min(each, first + 99)})


def _left(queue: Backlog) -> tuple[int, int]:
    """Old jobs and old events."""
    counts = queue.one(
        "SELECT (SELECT count(*) FROM jobs WHERE starts_with(id, 'job_old_')) AS jobs, "
        "(SELECT count(*) FROM events WHERE starts_with(id, 'evt_old_')) AS events"
    )
    return int(counts["jobs"]), int(counts["events"])


def _claims(queue: Backlog, count: int) -> list[float]:
    """Seconds of so many claims, each with the finish of what it took."""
    seconds = []
    for _ in range(count):
        began = time.perf_counter()
        with queue.sessions.begin() as session:
            jobs = claim(session, _BATCH)
        with queue.sessions.begin() as session:
            finish(session, jobs, [0.1] * len(jobs))
        seconds.append(time.perf_counter() - began)
        if len(jobs) != _BATCH:
            raise RuntimeError("the queue ran dry")
        time.sleep(_REST)
    return seconds


def measure(report: Report, ground: Ground, size: Size) -> None:
    """Claim with and without the cleaner, by turns; then let it end its work."""
    with ground.queue("retention") as (queue, settings):
        tenants = queue.tenants("t", size.tenants)
        fill(queue, tenants, size.old)
        batches = 2 * size.rounds * size.claims + size.claims
        queue.fill(tenants[:20], batches * _BATCH // 20 + _BATCH)
        queue.vacuum()
        with cleaner(settings) as shift:
            _claims(queue, size.claims)
            before, began = _left(queue), time.perf_counter()
            alone: list[float] = []
            beside: list[float] = []
            for _ in range(size.rounds):
                shift.works.clear()
                alone += _claims(queue, size.claims)
                shift.works.set()
                beside += _claims(queue, size.claims)
            _report_claims(report, alone, beside, sum(before) - sum(_left(queue)))
            shift.is_done.clear()
            until(shift.is_done.is_set, seconds=_DONE_WITHIN)
            seconds = time.perf_counter() - began
        report.add("old jobs and events left", sum(_left(queue)))
        report.add("old jobs thrown away a second, with their events", before[0] / seconds)
        report.expect("old jobs and events left", "<=", 0)
        print(f"\n{before[0]} old jobs and {before[1]} events: gone after {seconds:.0f} s")


def _report_claims(report: Report, alone: Sequence[float], beside: Sequence[float], deleted: int) -> None:
    without, with_it = 1000 * median(alone), 1000 * median(beside)
    report.add("milliseconds of a claim and its finish beside the cleaner", with_it, baseline=without)
    report.add("a claim beside the cleaner over one without", with_it / without)
    report.expect("a claim beside the cleaner over one without", "<=", 1.5)
    report.add("old jobs and events thrown away meanwhile", deleted)
    report.expect("old jobs and events thrown away meanwhile", ">=", 1)
    print_table(
        f"Claims of {_BATCH} and their finishes, in milliseconds",
        ("", "median", "longest"),
        [("without", without, 1000 * max(alone)), ("beside the cleaner", with_it, 1000 * max(beside))],
    )


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure everything, print it and say what was met."""
    given = argument_parser("retention", __doc__).parse_args(arguments)
    report = Report()
    with durable_ground() as ground:
        measure(report, ground, QUICK if given.quick else Size())
    report.finish(given.json)


if __name__ == "__main__":
    main()
