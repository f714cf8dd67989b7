"""A queue whose clock the test moves, and the doorbells that lie in a real broker."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta

import pytest
import redis
from sqlalchemy import Connection, Engine, event

from core.config import Settings
from core.jobs import workers
from tests.integration.jobs.conftest import POOL, Queue, queue
from workers.celery_app import create_app, queue_name, ring

__all__ = ["queue"]


class Clock:
    """Moves ``lockstep_now()`` in every transaction of the engines it governs."""

    def __init__(self, *engines: Engine) -> None:
        self._ahead = timedelta(0)
        for engine in engines:
            event.listen(engine, "begin", self._set)

    def advance(self, by: timedelta) -> None:
        self._ahead += by

    def _set(self, connection: Connection) -> None:
        seconds = f"PT{self._ahead.total_seconds():.3f}S"
        connection.exec_driver_sql("SELECT set_config('lockstep.clock_offset', %s, true)", (seconds,))


class Doorbells:
    """The broker, as the ringer and as a counting listener sees it."""

    def __init__(self, broker_url: str) -> None:
        self._app = create_app(Settings(broker_url=broker_url))
        self.server = redis.Redis.from_url(broker_url)

    def ring(self, pool: str, times: int) -> None:
        ring(self._app, pool, times)

    def heard(self, pool: str = POOL) -> int:
        """How many were rung since the last look."""
        count = self.server.llen(queue_name(pool))
        assert isinstance(count, int)
        self.server.delete(queue_name(pool))
        return count

    def close(self) -> None:
        self._app.close()
        self.server.close()


class Crew:
    """Workers that say how they are."""

    def __init__(self, queue: Queue) -> None:
        self._queue = queue

    def hire(self, state: str = "idle", *, pool: str = POOL) -> str:
        with self._queue.sessions.begin() as session:
            worker_id = workers.register(session, pool=pool, host="here", pid=1)
        self.say(worker_id, state)
        return worker_id

    def say(self, worker_id: str, state: str) -> None:
        with self._queue.sessions.begin() as session:
            workers.beat(session, worker_id, state=state, device="cpu", warm_models=())


@pytest.fixture
def clock(queue: Queue) -> Clock:
    """The clock of everything that the queue's workers and its owner do."""
    return Clock(queue.workers, queue.owners)


@pytest.fixture
def crew(queue: Queue) -> Crew:
    """Nobody yet."""
    return Crew(queue)


@pytest.fixture
def doorbells(broker_url: str) -> Iterator[Doorbells]:
    """A broker without a sound in it."""
    made = Doorbells(broker_url)
    made.heard()
    yield made
    made.close()
