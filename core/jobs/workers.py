"""Worker processes as the database knows them, and the pools that wait for a doorbell."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from datetime import datetime, timedelta
from typing import Literal

from sqlalchemy.orm import Session

from core.catalog import statements as catalog
from core.ids import new_id
from core.jobs import statements
from core.scheduling import statements as scheduling

FRESH = timedelta(seconds=30)  # an idle worker silent for longer is not rung
_SILENT = timedelta(seconds=90)


@dataclass(frozen=True)
class IdleWorker:
    """A worker that waits while its pool has work for it; both times are the database's."""

    pool: str
    worker_id: str
    heartbeat_at: datetime
    now: datetime


@dataclass(frozen=True)
class Vitals:
    """How a worker's device fares; None is what it does not tell. Of a CPU, the worker's own part of it."""

    device_kind: Literal["gpu", "cpu"]
    utilization: float | None = None  # from 0 to 1
    memory_used_bytes: int | None = None
    memory_total_bytes: int | None = None
    temperature_c: float | None = None
    power_w: float | None = None


_UNKNOWN = dict.fromkeys(Vitals.__dataclass_fields__)


def register(session: Session, *, pool: str, host: str, pid: int) -> str:
    """A row for this start of a worker; its id is new, so nothing of an earlier start can be mistaken for it."""
    session.execute(catalog.upsert_pool(pool))  # a worker may be up before anybody has registered its pool
    worker_id = new_id("wrk")
    session.execute(statements.REGISTER_WORKER, {"worker_id": worker_id, "pool": pool, "host": host, "pid": pid})
    return worker_id


def beat(
    session: Session,
    worker_id: str,
    *,
    state: str,
    device: str | None,
    warm_models: Iterable[str],
    vitals: Vitals | None = None,
) -> None:
    """Say that the worker lives, what it is doing, what it holds warm and how its device fares."""
    told = {"worker_id": worker_id, "state": state, "device": device, "warm_models": sorted(warm_models)}
    session.execute(statements.BEAT, told | (_UNKNOWN if vitals is None else asdict(vitals)))


def idle_with_work(session: Session) -> list[IdleWorker]:
    """The idle workers of pools that have runnable work."""
    return [IdleWorker(**row._mapping) for row in session.execute(scheduling.IDLE_WORKERS, {"fresh": FRESH})]


def forget_silent(session: Session) -> int:
    """Mark workers that went without a word as stopped; returns how many."""
    return len(session.execute(statements.FORGET_WORKERS, {"silent": _SILENT}).all())
