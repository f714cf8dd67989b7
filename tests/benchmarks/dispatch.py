"""Measures the queue beside raw Celery on one broker: how soon a job starts, how many a second, and at what depth."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import median, quantiles
from typing import Final

from sqlalchemy import text

from core.config import Settings
from core.db import migrations
from core.embedded.folder import DataFolder
from core.embedded.placement import find_home
from core.embedded.postgres import API, OPERATOR, WORKER, Postgres
from core.embedded.stack import make_valkey
from tests.benchmarks.report import Report, argument_parser, print_table
from tests.benchmarks.scheduling.backlog import Backlog, claim, finish
from tests.benchmarks.scheduling.latency import RAW_QUEUE, RAW_TASK, Starts, our_delays, part, raw_app, raw_delays
from tests.stack import server_folder

BATCHES: Final = (8, 32)
_WORKER: Final = "tests.benchmarks.scheduling.worker"

# Pages that this connection looked at, in memory or not.
_BUFFERS: Final = text(
    "SELECT pg_stat_force_next_flush(), (SELECT coalesce(sum(hits + reads), 0)::bigint AS pages "
    "FROM pg_stat_get_backend_io(pg_backend_pid()) WHERE context = 'normal') AS pages"
)


@dataclass(frozen=True)
class Size:
    """How much is measured."""

    idle: int = 300  # jobs, one at a time
    rate: int = 4000  # jobs that wait
    turns: int = 5
    deep: tuple[int, int] = (10_000, 100)  # tenants, and jobs of each
    shallow: tuple[int, int] = (10, 100)
    claims: int = 60  # batches at each depth, taken in turns


QUICK = Size(idle=4, rate=64, turns=1, deep=(60, 10), shallow=(5, 12), claims=3)


@dataclass(frozen=True)
class Ground:
    """A durable Postgres and a broker, as `lockstepd up` has them."""

    postgres: Postgres
    broker_url: str
    folder: Path

    @contextmanager
    def queue(self, name: str) -> Iterator[tuple[Backlog, Settings]]:
        """Make an empty queue in a database of its own, and the settings of its parts."""
        self.postgres.create_database(name)
        url = self.postgres.url(database=name)
        migrations.upgrade(url)
        queue = Backlog(url)
        settings = Settings(
            database_url=url.render_as_string(),
            api_database_url=url.set(username=API).render_as_string(),
            worker_database_url=url.set(username=WORKER).render_as_string(),
            operator_database_url=url.set(username=OPERATOR).render_as_string(),
            broker_url=self.broker_url,
            models=("models/storybook",),
        )
        try:
            yield queue, settings
        finally:
            queue.close()


def measure_latency(report: Report, ground: Ground, size: Size) -> None:
    """One job at a time, from its commit to its start, while everything is idle."""
    starts, app = Starts(ground.broker_url), raw_app(ground.broker_url)
    with ground.queue("latency") as (queue, settings):
        tenants = queue.tenants("t", 10)
        with part(_WORKER, settings, ground.folder, "raw"):
            raw_delays(app, starts, 3)
            raw = raw_delays(app, starts, size.idle)
        with part("workers.maintain", settings, ground.folder), part(_WORKER, settings, ground.folder, "ours", "8"):
            our_delays(queue, tenants, starts, 3)
            ours = our_delays(queue, tenants, starts, size.idle)
    app.close()
    starts.close()
    rows = []
    for name, share, target in (("p50", 50, 25.0), ("p99", 99, 100.0)):
        figure = f"milliseconds from commit to start, idle, {name}"
        mine, theirs = (1000 * quantiles(delays, n=100)[share - 1] for delays in (ours, raw))
        report.add(figure, mine, baseline=theirs)
        report.expect(figure, "<=", target)
        rows.append((name, theirs, mine))
    print_table(f"Milliseconds to the start of {size.idle} jobs, one at a time", ("", "raw Celery", "this queue"), rows)


def measure_rate(report: Report, ground: Ground, size: Size) -> None:
    """Jobs that do nothing, all waiting when one worker process comes: jobs a second, by turns."""
    starts = Starts(ground.broker_url)
    raw: list[float] = []
    ours: dict[int, list[float]] = {room: [] for room in BATCHES}
    for turn in range(size.turns):
        raw.append(_raw_rate(ground, starts, size.rate, turn))
        for room, rates in ours.items():
            rates.append(_our_rate(ground, starts, size.rate, turn, room))
    starts.close()
    rows: list[tuple[str, float, float]] = [("raw Celery, one a task", median(raw), 1.0)]
    for room, rates in ours.items():
        figure = f"jobs a second in batches of {room} over raw Celery's"
        report.add(f"jobs a second in batches of {room}", median(rates), baseline=median(raw))
        report.add(figure, median(mine / theirs for mine, theirs in zip(rates, raw, strict=True)))
        report.expect(figure, ">=", 2)
        rows.append((f"this queue, batches of {room}", median(rates), report.figures[figure]))
    print_table(
        f"{size.rate} jobs that do nothing, one worker; medians of {size.turns} turns",
        ("", "jobs a second", "over raw Celery"),
        rows,
    )


def _raw_rate(ground: Ground, starts: Starts, count: int, turn: int) -> float:
    app = raw_app(ground.broker_url)
    for _ in range(count):
        app.send_task(RAW_TASK, queue=RAW_QUEUE)
    starts.clear()
    with ground.queue(f"raw_{turn}") as (_, settings), part(_WORKER, settings, ground.folder, "raw"):
        rate = _rate(starts.all(count))
    app.close()
    return rate


def _our_rate(ground: Ground, starts: Starts, count: int, turn: int, room: int) -> float:
    starts.clear()
    with ground.queue(f"rate{room}_{turn}") as (queue, settings):
        queue.fill(queue.tenants("t", 40), count // 40 + 1)
        waiting = int(queue.one("SELECT count(*) AS jobs FROM ready")["jobs"])
        with (
            part("workers.maintain", settings, ground.folder),
            part(_WORKER, settings, ground.folder, "ours", str(room)),
        ):
            return _rate(starts.all(waiting))


def _rate(starts: Sequence[float]) -> float:
    return (len(starts) - 1) / (max(starts) - min(starts))


def measure_depth(report: Report, ground: Ground, size: Size) -> None:
    """Claims of eight with a million jobs of ten thousand tenants queued, beside a thousand jobs of ten."""
    with ground.queue("deep") as (deep, _), ground.queue("shallow") as (shallow, _):
        queues = {"deep": deep, "shallow": shallow}
        for name, (tenants, jobs) in (("deep", size.deep), ("shallow", size.shallow)):
            queues[name].fill(queues[name].tenants("t", tenants), jobs)
            queues[name].vacuum()
        seconds: dict[str, list[float]] = {name: [] for name in queues}
        pages: dict[str, list[float]] = {name: [] for name in queues}
        for turn in range(size.claims + 2):
            for name, queue in queues.items():
                taken, read, count = _claim_once(queue)
                if turn >= 2:  # the first ones open connections and prepare statements
                    seconds[name].append(taken / count)
                    pages[name].append(read / count)
    for what, values in (("seconds", seconds), ("pages", pages)):
        ratio = median(values["deep"]) / median(values["shallow"])
        figure = f"{what} per claimed job, deep over shallow"
        report.add(f"{what} per claimed job, deep", median(values["deep"]), baseline=median(values["shallow"]))
        report.add(figure, ratio)
        report.expect(figure, "<=", 1.5)
    rows = [
        (f"{tenants * jobs} jobs of {tenants} tenants", 1000 * median(seconds[name]), median(pages[name]))
        for name, (tenants, jobs) in (("shallow", size.shallow), ("deep", size.deep))
    ]
    print_table("A claimed job, in batches of eight; medians", ("queued", "milliseconds", "pages looked at"), rows)


def _claim_once(queue: Backlog) -> tuple[float, int, int]:
    """Claim a batch and finish it; seconds and pages of the claim, and how many jobs it took."""
    with queue.sessions() as session:
        before = session.execute(_BUFFERS).one().pages
        session.commit()
        started = time.perf_counter()
        with session.begin():
            jobs = claim(session, 8)
        taken = time.perf_counter() - started
        session.execute(_BUFFERS)
        session.commit()
        read = session.execute(_BUFFERS).one().pages - before
        session.commit()
        with session.begin():
            finish(session, jobs, [0.01] * len(jobs))
    return taken, int(read), len(jobs)


@contextmanager
def durable_ground() -> Iterator[Ground]:
    """Servers that write to the disk what they say is written."""
    with server_folder() as path, tempfile.TemporaryDirectory() as logs:
        folder = DataFolder.open(path / "data")
        postgres = Postgres(find_home(folder.path), log=folder.log("postgres"))
        broker = make_valkey(folder)
        postgres.start()
        try:
            broker.start()
            yield Ground(postgres, broker.url, Path(logs))
        finally:
            broker.process.kill()
            postgres.stop()


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure everything and say what was met."""
    given = argument_parser("dispatch", __doc__).parse_args(arguments)
    report = Report()
    with durable_ground() as ground:
        measure(report, ground, QUICK if given.quick else Size())
    report.finish(given.json)


def measure(report: Report, ground: Ground, size: Size) -> None:
    """Measure every part."""
    measure_latency(report, ground, size)
    measure_rate(report, ground, size)
    measure_depth(report, ground, size)


if __name__ == "__main__":
    main()
