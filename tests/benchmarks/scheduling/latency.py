"""From a commit to a start on an idle system: raw Celery's way and ours, on one broker, each by its own process."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any, Final

import redis
from celery import Celery

from core.config import Settings, child_environment
from core.embedded.process import Process
from tests.benchmarks.scheduling.backlog import Backlog
from tests.waiting import until

STARTS: Final = "benchmark.starts"
"""The list in the broker that both kinds of worker push their start times to, in seconds since 1970."""
_ARE_IDLE: Final = "SELECT bool_and(state = 'idle') AS idle FROM workers WHERE state <> 'stopped'"
RAW_TASK: Final = "benchmark.note"
RAW_QUEUE: Final = "benchmark.raw"


@contextmanager
def part(module: str, settings: Settings, logs: Path, *arguments: str) -> Iterator[None]:
    """Run a module of ours as a process of its own."""
    process = Process(
        name=module,
        command=(sys.executable, "-m", module, *arguments),
        log=logs / f"{module}.log",
        environment=child_environment(settings),
        patience=timedelta(seconds=20),
    )
    process.start()
    try:
        yield
    finally:
        process.stop()


def raw_app(broker_url: str) -> Celery:
    """An application as the users of Celery have it: tasks, acknowledged late, one in hand."""
    app = Celery("raw", broker=broker_url, set_as_current=False)
    app.conf.update(task_ignore_result=True, task_acks_late=True, worker_prefetch_multiplier=1)
    broker = redis.Redis.from_url(broker_url)

    def note() -> None:
        broker.rpush(STARTS, time.time())

    app.task(name=RAW_TASK)(note)
    return app


class Starts:
    """What the workers told of their starts."""

    def __init__(self, broker_url: str) -> None:
        self._broker = redis.Redis.from_url(broker_url, socket_timeout=None)  # its own ends a longer wait
        self._broker.delete(STARTS)

    def next(self, patience: float = 60.0) -> float:
        """Wait for the next one."""
        told: Any = self._broker.blpop([STARTS], timeout=patience)
        if told is None:
            raise RuntimeError("nothing was started")
        return float(told[1])

    def all(self, count: int, patience: float = 300.0) -> list[float]:
        """Wait for so many."""
        until(lambda: int(self._broker.llen(STARTS)) >= count, seconds=patience)
        return [float(told) for told in self._broker.lrange(STARTS, 0, -1)]

    def clear(self) -> None:
        """Forget what was told."""
        self._broker.delete(STARTS)

    def close(self) -> None:
        """Let go of the connection."""
        self._broker.close()


def raw_delays(app: Celery, starts: Starts, count: int) -> list[float]:
    """Publish one task at a time to an idle worker; seconds from the publication's begin to the start."""
    delays = []
    for _ in range(count):
        sent = time.time()
        app.send_task(RAW_TASK, queue=RAW_QUEUE)
        delays.append(starts.next() - sent)
        time.sleep(0.05)
    return delays


def our_delays(queue: Backlog, tenants: list[str], starts: Starts, count: int) -> list[float]:
    """Commit one job at a time while the worker is idle; seconds from the commit's return to the start."""
    delays = []
    for number in range(count):
        until(
            lambda: queue.one("SELECT bool_and(state = 'idle') AS idle FROM workers WHERE state <> 'stopped'")["idle"]
        )
        committed = queue.submit(tenants[number % len(tenants)])
        delays.append(starts.next() - committed)
        time.sleep(0.05)
    return delays
