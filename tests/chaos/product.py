"""Lockstep under the faults: its parts as `lockstepd up` runs them, its customers, and what must be true afterwards."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import redis
from sqlalchemy import text
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import Session, sessionmaker

from core.config import Settings
from core.db import migrations
from core.db.engine import sync_engine
from core.embedded.ports import find_free
from core.embedded.postgres import API, WORKER
from core.invariants import checks
from core.storage.s3 import ObjectStore
from core.tenants.provisioning import create_key, create_tenant
from tests.chaos.load import TENANTS, Load
from tests.chaos.recovery import Try
from tests.chaos.rig import Part, Rig
from workers.celery_app import queue_name

LEASE = timedelta(seconds=12)
_HEARTBEAT = timedelta(seconds=2)
_ATTEMPTS = 8
_SCOPES = frozenset({"generate", "train", "read", "admin"})
_WORKERS = 2
_ALL = 10_000_000


class Product:
    """The system, once it is started."""

    def __init__(self, rig: Rig, settings: Settings, load: Load) -> None:
        self.rig = rig
        self.settings = settings
        self.load = load
        self._engine = sync_engine(rig.direct.owner_dsn)
        self._sessions = sessionmaker(self._engine)

    def column(self, sql: str, **values: Any) -> list[Any]:
        with self._engine.begin() as connection:
            return list(connection.execute(text(sql), values).scalars())

    def rows(self, sql: str, **values: Any) -> list[Any]:
        with self._engine.begin() as connection:
            return list(connection.execute(text(sql), values))

    def is_quiet(self) -> bool:
        """Whether nothing is left to do: no job, and no delivery.

        Deliveries that are to be tried again in minutes or hours are due at once: their receivers are well, and the
        wait itself is not what is tested here.
        """
        try:
            return self._left() == [0]
        except SQLAlchemyError:  # Postgres is only just coming back
            return False

    def _left(self) -> list[int]:
        with self._engine.begin() as connection:
            connection.execute(
                text(
                    "UPDATE webhook_deliveries SET next_attempt_at = lockstep_now()"
                    " WHERE state = 'pending' AND lease_token IS NULL AND next_attempt_at > lockstep_now()"
                )
            )
        return self.column(
            "SELECT (SELECT count(*) FROM jobs WHERE state IN ('queued', 'running'))"
            " + (SELECT count(*) FROM webhook_deliveries WHERE state = 'pending')"
        )

    def tries(self) -> list[Try]:
        """Every attempt that has ended."""
        return [
            Try(*row)
            for row in self.rows(
                "SELECT job_id, extract(epoch FROM started_at)::float8, extract(epoch FROM ended_at)::float8, outcome"
                " FROM job_attempts WHERE ended_at IS NOT NULL ORDER BY token"
            )
        ]

    def states(self) -> Counter[str]:
        """How many jobs ended how."""
        return Counter(
            {row.state: row.jobs for row in self.rows("SELECT state, count(*) AS jobs FROM jobs GROUP BY 1")}
        )

    def verdict(self) -> dict[str, list[str]]:
        """What is wrong, by what should be so; everything empty when all is well."""
        asked = self.load.jobs
        jobs = {row.id: row for row in self.rows("SELECT id, state FROM jobs")}
        ended = {job for job, row in jobs.items() if row.state not in {"queued", "running"}}
        found = {
            "accepted jobs that did not end": [job for job in asked if job not in ended],
            "jobs nobody asked for": [job for job in jobs if job not in asked],
            "second results": self._second_results(asked),
            "second charges": self._second_charges(),
            "what does not add up": self.column("SELECT concat(subject, ' ', problem) FROM ledger_mismatches()"),
            "answers that contradict each other": self.load.contradictions,
            "webhooks": self._webhooks(),
            "objects missing or changed": checks.unsound_files(
                self._sessions, ObjectStore.from_settings(self.rig.direct), count=_ALL
            ),
            "doorbells left over": self._doorbells(),
        }
        for finding in checks.check(self._sessions, newest=_ALL):
            found[f"{finding.invariant.code} {finding.invariant.name}"] = list(finding.ids)
        return found

    def _second_results(self, asked: dict[str, dict[str, Any]]) -> list[str]:
        shown = self.rows(
            "SELECT j.id, j.kind, count(f.id) AS files, (SELECT count(*) FROM job_attempts a"
            " WHERE a.job_id = j.id AND a.outcome = 'succeeded') AS wins"
            " FROM jobs j LEFT JOIN files f ON f.job_id = j.id WHERE j.state = 'succeeded' GROUP BY j.id"
        )
        return [row.id for row in shown if row.wins != 1 or row.files != asked.get(row.id, {}).get("n", 1)]

    def _second_charges(self) -> list[str]:
        """Tenants whose claims were not each paid back once: notes still due are counted in."""
        return self.column(
            "SELECT s.tenant_id FROM tenant_sched s LEFT JOIN sched_notes n USING (pool, tenant_id)"
            " GROUP BY s.pool, s.tenant_id, s.running HAVING s.running <> coalesce(sum(n.released), 0)"
        )

    def _webhooks(self) -> list[str]:
        deliveries = self.rows("SELECT event_id, state, attempt FROM webhook_deliveries")
        owed = {row.event_id: f"{row.state} after {row.attempt} attempts" for row in deliveries}
        ends = set(self.column("SELECT id FROM events WHERE type ~ '[.](succeeded|failed|canceled)$'"))
        wrong = [f"no delivery of {event}" for event in ends - owed.keys()]
        wrong += [f"{event} was never heard: {owed[event]}" for event in owed.keys() - self.load.heard.keys()]
        wrong += [f"{event} is unknown" for event in self.load.heard.keys() - owed.keys()]
        wrong += [f"{event} was told in two ways" for event, bodies in self.load.heard.items() if len(bodies) > 1]
        return wrong + ["a bad signature"] * self.load.bad_signatures

    def _doorbells(self) -> list[str]:
        with redis.Redis.from_url(self.rig.valkey.url) as client:
            left = client.llen(queue_name("gpu"))
        assert isinstance(left, int)
        return ["doorbell"] * max(0, left - 2 * _WORKERS)

    def close(self) -> None:
        self._engine.dispose()


def _settings(rig: Rig, model: Path) -> Settings:
    return Settings.model_validate(
        {
            "database_url": rig.database(),
            "api_database_url": rig.database(API),
            "worker_database_url": rig.database(WORKER),
            "broker_url": rig.broker,
            **rig.store,
            "data_dir": rig.folder.path,
            "models": (str(model),),
            "device": "cpu",
            "port": find_free()[0],
            "webhook_allow": ("127.0.0.0/8",),
            "lease_seconds": LEASE.total_seconds(),
            "heartbeat_seconds": _HEARTBEAT.total_seconds(),
            "max_attempts": _ATTEMPTS,
        }
    )


def _parts(settings: Settings) -> Sequence[Part]:
    environment = settings.environment()
    workers = [Part(f"worker-{k + 1}", ("-m", "workers.run"), environment, has_clock=True) for k in range(_WORKERS)]
    return Part("maintain", ("-m", "workers.maintain"), environment), Part("api", ("-m", "api"), environment), *workers


@contextmanager
def product(rig: Rig, model: Path, *, seed: int) -> Iterator[Product]:
    """Lockstep on the rig, its customers settled in; they go on until they are told to stop."""
    settings = _settings(rig, model)
    migrations.upgrade(rig.direct.owner_dsn)
    ObjectStore.from_settings(rig.direct).ensure_bucket()
    engine = sync_engine(rig.direct.owner_dsn)
    with Session(engine) as session, session.begin():
        tenants = [create_tenant(session, f"tenant-{k}").id for k in range(TENANTS)]
        keys = {tenant: create_key(session, tenant, "chaos", _SCOPES) for tenant in tenants}
    engine.dispose()
    rig.start_parts(_parts(settings))
    load = Load(settings.base_url, keys, seed=seed)
    made = Product(rig, settings, load)
    load.start()
    deadline = time.monotonic() + 120
    try:
        rig.watch(until=lambda: load.begun.is_set() or time.monotonic() > deadline)
        yield made
    finally:
        load.leave()
        made.close()
