"""The whole service: what it adds to one picture when nothing else is asked for, and to a backlog of them.

Every part runs as `lockstepd up` runs it: API, maintenance, a worker with its engine, Postgres, broker and S3 server,
on this machine. What the engine takes is told by the engine itself, the rest by the database's clock.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import median
from typing import Any, Self

from sqlalchemy import text
from sqlalchemy.orm import Session

from core.config import Settings
from core.db.engine import sync_engine
from core.scheduling.levers import pause_pool
from core.tenants.provisioning import create_key, create_tenant
from lockstep import Generation, Lockstep
from tests.benchmarks.report import Report, print_table
from tests.benchmarks.running import running
from tests.benchmarks.serving.setup import BATCH, SCENES, Size, draw, plain_requests
from tests.serving import POOL
from workers.engine.storybook.drawing import load_model
from workers.engine.warm import WarmModel

OVERHEAD_MS, KEPT = 60.0, 0.85
_MODEL = "storybook-student"
_PER_JOB = 4  # pictures of one job of the backlog
_SCOPES = frozenset({"generate", "read"})
_ENGINE = ("load", "open", "condition", "sample", "decode", "encode")
_PATIENCE = 600.0  # seconds for the whole backlog

_ROW = text("""
    SELECT extract(epoch FROM j.created_at)::float8 AS created, extract(epoch FROM j.started_at)::float8 AS started,
        extract(epoch FROM j.finished_at)::float8 AS finished, a.timings
    FROM jobs j JOIN job_attempts a ON a.job_id = j.id AND a.outcome = 'succeeded' WHERE j.id = ANY (:ids)
""")


def measure_service(report: Report, teacher: Path, student: Path, size: Size) -> None:
    """Measure one picture at a time, then backlogs and the bare engine in turns."""
    with running(teacher, student) as settings, Service(settings) as service:
        service.warm_up()
        _measure_single(report, service, size)
        _measure_backlog(report, service, student, size)


class Service:
    """A customer of the service that runs, and a look at its tables."""

    def __init__(self, settings: Settings) -> None:
        self._engine = sync_engine(settings.owner_dsn)
        with Session(self._engine) as session, session.begin():
            tenant_id = create_tenant(session, "benchmark").id
            key = create_key(session, tenant_id, "benchmark", _SCOPES)
        self._client = Lockstep(base_url=settings.base_url, api_key=key)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._client.close()
        self._engine.dispose()

    def warm_up(self) -> None:
        """Draw until the model is loaded and every connection is made."""
        for seed in range(3):
            self.draw_one(seed)

    def draw_one(self, seed: int) -> dict[str, float]:
        """Ask for one picture and wait; seconds of each part of the way."""
        asked = time.perf_counter()
        job = self._ask(seed, 1)
        accepted = time.perf_counter()
        for _ in self._client.generations.events(job.id):
            pass
        told = time.time()
        row = self._rows([job.id])[0]
        return {"accept": accepted - asked, "notify": told - row["finished"], **_parts(row)}

    def backlog_rate(self, pictures: int) -> float:
        """Ask for many pictures while their pool rests; pictures a second from the first start to the last end.

        Whoever asks is no part of the service, and here would take from it the processors that it is measured on.
        """
        self._pause(True)
        jobs = self._ask_for_all(pictures)
        self._pause(False)
        return self._rate(jobs)

    def rate_while_asking(self, pictures: int) -> float:
        """The same, with the first of them started while the others are still asked for."""
        return self._rate(self._ask_for_all(pictures))

    def _pause(self, paused: bool) -> None:
        with Session(self._engine) as session, session.begin():
            pause_pool(session, POOL, paused=paused)

    def _ask_for_all(self, pictures: int) -> list[str]:
        return [self._ask(seed, _PER_JOB).id for seed in range(0, pictures, _PER_JOB)]

    def _rate(self, jobs: Sequence[str]) -> float:
        deadline = time.monotonic() + _PATIENCE
        while len(rows := self._rows(jobs)) < len(jobs):
            if time.monotonic() > deadline:
                raise RuntimeError(f"{len(rows)} of {len(jobs)} jobs are done")
            time.sleep(0.5)
        seconds: float = max(row["finished"] for row in rows) - min(row["started"] for row in rows)
        return len(jobs) * _PER_JOB / seconds

    def _ask(self, seed: int, pictures: int) -> Generation:
        prompt = f"a cat {SCENES[seed % len(SCENES)]}".strip()
        return self._client.generations.create(prompt=prompt, model=_MODEL, seed=seed, n=pictures)

    def _rows(self, ids: Sequence[str]) -> list[dict[str, Any]]:
        with self._engine.connect() as connection:
            return [dict(row) for row in connection.execute(_ROW, {"ids": list(ids)}).mappings()]


def _parts(row: Mapping[str, Any]) -> dict[str, float]:
    """Where one job's time went, from its acceptance to its end."""
    timings = row["timings"]
    known = {part: timings.get(part, 0.0) for part in ("fetch", *_ENGINE, "store")}
    doorbell = row["started"] - row["created"]
    rest = row["finished"] - row["started"] - sum(known.values())
    return {"doorbell and claim": doorbell, **known, "hand over and finish": rest}


def _measure_single(report: Report, service: Service, size: Size) -> None:
    drawn = [service.draw_one(seed) for seed in range(size.single)]
    outside = ("accept", "notify", *_ENGINE)
    added = [sum(value for part, value in parts.items() if part not in outside) for parts in drawn]
    report.add("milliseconds from accepted to finished beside the engine's", 1000 * median(added))
    report.expect("milliseconds from accepted to finished beside the engine's", "<=", OVERHEAD_MS)
    rows = [(part, 1000 * median(parts[part] for parts in drawn)) for part in drawn[0]]
    rows.append(("from accepted to finished, beside the engine's", 1000 * median(added)))
    print_table(
        f"One picture on a warm, idle service: medians of {size.single} requests, one after another",
        ("part", "milliseconds"),
        rows,
    )
    for part, milliseconds in rows[:-1]:
        report.add(f"milliseconds: {part}", milliseconds)


def _measure_backlog(report: Report, service: Service, student: Path, size: Size) -> None:
    """Machines change their speed from minute to minute: every turn has the engine alone and the service."""
    model = WarmModel(load_model(student))
    ways = {
        "engine alone, one thread": lambda: _bare_rate(model, size),
        "service, all of them waiting": lambda: service.backlog_rate(size.backlog),
        "service, while a customer beside it asks for them": lambda: service.rate_while_asking(size.backlog),
    }
    turns = [{way: measure() for way, measure in ways.items()} for _ in range(size.turns)]
    bare, waiting, asking = ([turn[way] for turn in turns] for way in ways)
    kept, kept_asking = (
        median(rate / alone for rate, alone in zip(rates, bare, strict=True)) for rates in (waiting, asking)
    )
    report.add("pictures a second under backlog", median(waiting), baseline=median(bare))
    report.add("throughput of the service over the bare engine", kept)
    report.add("the same while a customer on this machine asks for them", kept_asking)
    report.expect("throughput of the service over the bare engine", ">=", KEPT)
    print_table(
        f"{size.backlog} pictures in one step each, in jobs of {_PER_JOB}, batches of {BATCH}; medians of {size.turns}",
        ("how", "pictures a second", "of the engine's"),
        [
            (way, median(rates), share)
            for way, rates, share in zip(ways, (bare, waiting, asking), (1.0, kept, kept_asking), strict=True)
        ],
    )


def _bare_rate(model: WarmModel, size: Size) -> float:
    """Return the pictures a second of the engine in a loop of its own, with prompts that it knows."""
    requests = plain_requests(model.base)
    draw(model, requests)
    batches = max(1, size.backlog // BATCH // 2)
    started = time.perf_counter()
    for _ in range(batches):
        draw(model, requests)
    return batches * BATCH / (time.perf_counter() - started)
