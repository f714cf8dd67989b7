"""Plain Celery under the same faults: late acknowledgement, rejection on a lost worker, retries; results in a table.

Its customers insist as Lockstep's do: a request writes its row and calls ``delay``, and is repeated until both worked.
"""

from __future__ import annotations

import json
import random
import threading
import time
import uuid
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import redis
from kombu.exceptions import OperationalError as BrokerError
from sqlalchemy import create_engine, text
from sqlalchemy.exc import SQLAlchemyError

from core.storage.s3 import ObjectMissing, ObjectStore
from tests.chaos.load import TENANTS
from tests.chaos.recovery import Try
from tests.chaos.rig import Part, Rig
from tests.chaos.rival_tasks import QUEUE, TASK, make_app

_WORKERS = 2
_MOST_OPEN = 80  # jobs of all tenants together, as many as Lockstep's may have
_PAUSE_SECONDS = 2.5
_FORGOTTEN_SECONDS = 60.0  # after which a customer no longer waits for a job before asking for another
_SETTLED_SECONDS = 40.0  # without a message anywhere: longer than messages hide

_TABLES = """
    CREATE TABLE rival_jobs (id text PRIMARY KEY, at timestamptz DEFAULT now());
    CREATE TABLE rival_results (job_id text, at timestamptz DEFAULT clock_timestamp());
"""


@dataclass
class RivalLoad:
    """Tenants that ask for drawings, one thread each."""

    rig: Rig
    seed: int
    accepted: list[tuple[float, float]] = field(default_factory=list)
    jobs: dict[str, dict[str, Any]] = field(default_factory=dict)
    acts: Counter[str] = field(default_factory=Counter)
    deliveries: int = 0
    heard: frozenset[str] = frozenset()
    silent: threading.Event = field(default_factory=threading.Event)
    promised_at: dict[str, float] = field(default_factory=dict)
    _stopping: threading.Event = field(default_factory=threading.Event)
    _leaving: threading.Event = field(default_factory=threading.Event)

    def start(self) -> None:
        self._app = make_app(self.rig.broker)
        self._engine = create_engine(self.rig.database(), pool_pre_ping=True, pool_size=TENANTS)
        self._direct = create_engine(self.rig.direct.owner_dsn, pool_pre_ping=True)
        self._tenants = [threading.Thread(target=self._live, args=(k,), daemon=True) for k in range(TENANTS)]
        for tenant in self._tenants:
            tenant.start()
        threading.Thread(target=self._wait_for_all, daemon=True).start()

    def stop(self) -> None:
        self._stopping.set()

    def leave(self) -> None:
        self._stopping.set()
        self._leaving.set()
        self._app.close()
        self._engine.dispose()
        self._direct.dispose()

    def _wait_for_all(self) -> None:
        for tenant in self._tenants:
            tenant.join()
        self.silent.set()

    def _live(self, number: int) -> None:
        rng = random.Random(f"{self.seed} {number}")
        while not self._stopping.wait(rng.expovariate(1 / _PAUSE_SECONDS)):
            if self._open() < _MOST_OPEN:
                self._ask(rng)

    def _open(self) -> int:
        """Jobs that somebody waits for."""
        try:
            with self._direct.begin() as connection:
                done = set(connection.execute(text("SELECT job_id FROM rival_results")).scalars())
        except SQLAlchemyError:
            return _MOST_OPEN
        since = time.time() - _FORGOTTEN_SECONDS
        return sum(at > since and job not in done for job, at in list(self.promised_at.items()))

    def _ask(self, rng: random.Random) -> None:
        wanted = {"prompt": f"a {rng.choice(('cat', 'dog', 'bear'))}", "steps": rng.randint(2, 40)}
        wanted |= {"n": rng.randint(1, 2), "seed": rng.randrange(1000), "size": rng.choice((16, 24))}
        job_id, asked_at = str(uuid.uuid4()), time.time()
        while not self._leaving.is_set():
            try:
                with self._engine.begin() as connection:
                    row = text("INSERT INTO rival_jobs (id) VALUES (:id) ON CONFLICT DO NOTHING")
                    connection.execute(row, {"id": job_id})
                self._app.send_task(TASK, args=[job_id, wanted])
            except (SQLAlchemyError, BrokerError, OSError, redis.RedisError):
                self.acts["request broken"] += 1
                time.sleep(rng.uniform(0.3, 1.5))
            else:
                self.promised_at[job_id] = time.time()
                self.accepted.append((asked_at, self.promised_at[job_id]))
                self.jobs[job_id] = wanted
                return


class Rival:
    """Plain Celery, once it is started; the same face as ``product.Product``."""

    def __init__(self, rig: Rig, load: RivalLoad) -> None:
        self.rig = rig
        self.load = load
        self._engine = create_engine(rig.direct.owner_dsn, pool_pre_ping=True)
        self._busy_at: float | None = None  # when a message was last seen, or looked for first

    def rows(self, sql: str) -> list[Any]:
        with self._engine.begin() as connection:
            return list(connection.execute(text(sql)))

    def is_quiet(self) -> bool:
        """Whether no message is anywhere, and none has been for longer than one can hide."""
        try:
            with redis.Redis.from_url(self.rig.valkey.url, socket_timeout=5) as client:
                is_busy = any([client.llen(QUEUE), client.hlen("unacked")])
        except redis.RedisError:  # it is only just coming back
            is_busy = True
        if is_busy or self._busy_at is None:
            self._busy_at = time.monotonic()
        return time.monotonic() - self._busy_at > _SETTLED_SECONDS

    def tries(self) -> list[Try]:
        """Results: when a job was asked for is all that is known of its start."""
        return [
            Try(row.job_id, row.began, row.ended, "succeeded")
            for row in self.rows(
                "SELECT job_id, extract(epoch FROM j.at)::float8 AS began, extract(epoch FROM r.at)::float8 AS ended"
                " FROM rival_results r JOIN rival_jobs j ON j.id = r.job_id"
            )
        ]

    def states(self) -> Counter[str]:
        """How the accepted jobs ended."""
        done = {row.job_id for row in self.rows("SELECT DISTINCT job_id FROM rival_results")}
        return Counter("succeeded" if job in done else "lost" for job in self.load.jobs)

    def verdict(self) -> dict[str, list[str]]:
        """What is wrong."""
        results = Counter(row.job_id for row in self.rows("SELECT job_id FROM rival_results"))
        store = ObjectStore.from_settings(self.rig.direct)
        return {
            "accepted jobs that did not end": [
                f"{job} at {self.load.promised_at[job]:.1f}" for job in self.load.jobs if job not in results
            ],
            "second results": [job for job, times in results.items() if times > 1],
            "second charges": [job for job, times in results.items() for _ in range(times - 1)],
            "objects missing or changed": [
                job for job in results if job in self.load.jobs and not _is_whole(store, job, self.load.jobs[job]["n"])
            ],
        }

    def close(self) -> None:
        self._engine.dispose()


def _is_whole(store: ObjectStore, job_id: str, count: int) -> bool:
    try:
        return all(store.get(f"rival/{job_id}/{number}.png") for number in range(count))
    except ObjectMissing:
        return False


@contextmanager
def rival(rig: Rig, model: Path, *, seed: int) -> Iterator[Rival]:
    """Plain Celery on the rig, and its customers."""
    ObjectStore.from_settings(rig.direct).ensure_bucket()
    given = {"broker_url": rig.broker, "database_url": rig.database(), "model": str(model), "store": dict(rig.store)}
    environment = {"CHAOS_RIVAL": json.dumps(given)}
    command = ("-m", "celery", "-A", "tests.chaos.rival_tasks", "worker", "-P", "prefork", "-c", "1", "-l", "WARNING")
    load = RivalLoad(rig, seed)
    made = Rival(rig, load)
    for statement in filter(str.strip, _TABLES.split(";")):
        with made._engine.begin() as connection:
            connection.execute(text(statement))
    names = [f"worker-{k + 1}" for k in range(_WORKERS)]
    rig.start_parts([Part(name, (*command, "-n", f"{name}@%h"), environment, has_clock=True) for name in names])
    load.start()
    try:
        yield made
    finally:
        load.leave()
        made.close()
