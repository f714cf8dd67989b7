"""Workers for the dispatch benchmark, each a process: `python -m tests.benchmarks.scheduling.worker raw|ours [ROOM]`.

Ours hears the real doorbell through the real Celery application, and claims and finishes by the workers' own code, a
batch's end beside the next claim as in `workers.supervisor`; there is no engine between the two, as there is nothing in
the raw task.
"""

from __future__ import annotations

import os
import socket
import sys
import threading
import time
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Final

import redis
from celery import Celery
from sqlalchemy.orm import Session, sessionmaker

from core.config import Settings
from core.db.engine import sync_engine
from core.jobs import workers
from core.jobs.execution import ClaimedJob
from tests.benchmarks.scheduling.backlog import claim, finish
from tests.benchmarks.scheduling.latency import RAW_QUEUE, STARTS, raw_app
from workers.celery_app import SERVE, create_app, queue_name

_PULSE_SECONDS: Final = 5.0


class IdleHands:
    """A worker without an engine: what it claims is done at once."""

    def __init__(self, sessions: sessionmaker[Session], broker_url: str, pool: str, room: int) -> None:
        self._sessions = sessions
        self._broker = redis.Redis.from_url(broker_url)
        self._room = room
        self._rest = ThreadPoolExecutor(1)
        with sessions.begin() as session:
            self._id = workers.register(session, pool=pool, host=socket.gethostname(), pid=os.getpid())
        self._beat("idle")
        threading.Thread(target=self._pulse, daemon=True).start()

    def serve(self, pool: str) -> None:
        """Claim and finish until nothing is runnable."""
        unfinished: Future[None] | None = None
        while True:
            with self._sessions.begin() as session:
                jobs = claim(session, self._room, self._id)
            if unfinished is not None:
                unfinished.result()
            if not jobs:
                break
            now = time.time()
            self._broker.rpush(STARTS, *[now] * len(jobs))
            unfinished = self._rest.submit(self._finish, jobs)
        self._beat("idle")

    def _finish(self, jobs: Sequence[ClaimedJob]) -> None:
        with self._sessions.begin() as session:
            finish(session, jobs, [0.001] * len(jobs))

    def _pulse(self) -> None:
        while True:
            time.sleep(_PULSE_SECONDS)
            self._beat("idle")

    def _beat(self, state: str) -> None:
        with self._sessions.begin() as session:
            workers.beat(session, self._id, state=state, device="none", warm_models=())


def _ours(settings: Settings, room: int) -> tuple[Celery, str]:
    app = create_app(settings)
    hands = IdleHands(sessionmaker(sync_engine(settings.worker_dsn)), settings.broker_url, settings.pool, room)
    app.task(name=SERVE)(hands.serve)
    return app, queue_name(settings.pool)


def main() -> None:
    """Run until told to stop."""
    settings = Settings()
    kind, *room = sys.argv[1:]
    app, queue = (raw_app(settings.broker_url), RAW_QUEUE) if kind == "raw" else _ours(settings, int(room[0]))
    app.worker_main(
        [
            "worker", "--pool", "threads", "--concurrency", "1", "--queues", queue,
            "--hostname", f"{kind}-{os.getpid()}@{socket.gethostname()}",
            "--without-gossip", "--without-mingle", "--loglevel", "WARNING",
        ]
    )  # fmt: skip


if __name__ == "__main__":
    main()
