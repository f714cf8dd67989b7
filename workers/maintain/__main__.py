"""``python -m workers.maintain``: the loops that keep everything moving, in one process that leads.

Several may run; one leads and the others wait to take over.
"""

from __future__ import annotations

import asyncio
import random
import signal
from collections.abc import AsyncIterator, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, suppress
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import structlog
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import Session, sessionmaker

from core.catalog.facts import READ
from core.catalog.registration import register
from core.config import Settings
from core.db.engine import sync_engine
from core.logging import configure_logging
from core.storage.s3 import ObjectStore
from workers.celery_app import create_app, ring
from workers.engine.errors import EngineError
from workers.engine.hub import local_folder
from workers.maintain import expirer, families, forgetter, learner, preemptor, promoter, reaper, releaser, watcher
from workers.maintain.cleaner import Cleaner, Kept
from workers.maintain.leader import Leader
from workers.maintain.loop import Loop, persist, repeat
from workers.maintain.ringer import Ringer
from workers.maintain.selftester import SelfTester
from workers.maintain.sender import open_sender
from workers.maintain.sweeper import Sweeper
from workers.maintain.wakeup import WakeListener

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

_THREADS = 14  # more than there are loops that wait for Postgres or the broker

log = structlog.get_logger()


async def maintain(settings: Settings) -> None:
    """Lead whenever nobody else does, until cancelled."""
    asyncio.get_running_loop().set_default_executor(ThreadPoolExecutor(_THREADS))
    leader = Leader(settings.worker_dsn)
    try:
        async with _open_loops(settings) as loops:
            await _lead(leader, loops)
    finally:
        await leader.resign()


async def _lead(leader: Leader, loops: Sequence[Loop]) -> None:
    while True:
        await persist("leadership", leader.acquire)
        log.info("leadership.won")
        try:
            async with asyncio.TaskGroup() as group:
                for loop in loops:
                    group.create_task(repeat(loop), name=loop.name)
                await leader.hold()
        except* SQLAlchemyError as lost:
            log.warning("leadership.lost", error=str(lost.exceptions[0]))


@asynccontextmanager
async def _open_loops(settings: Settings) -> AsyncIterator[Sequence[Loop]]:
    """Every loop, with what it needs, once the models and the pool of the settings are registered."""
    engine = sync_engine(settings.worker_dsn)
    celery = create_app(settings)
    sessions = sessionmaker(engine)
    store = ObjectStore.from_settings(settings)
    wakeups = WakeListener(settings.worker_dsn)
    own: set[str] = set()
    url = (settings.internal_url or settings.base_url).rstrip("/")
    self_tester = SelfTester(sessions, store, url=url, own=own)
    try:
        await persist("registration", partial(asyncio.to_thread, _register, sessions, settings))
        async with open_sender(settings, own) as sender:
            ringer = Ringer(sessions, partial(ring, celery))
            call = partial(asyncio.to_thread, ringer.run_once)
            reap = partial(reaper.run_once, sessions, jitter=random.random)
            preempt = partial(
                preemptor.run_once,
                sessions,
                least=timedelta(seconds=settings.preempt_after_seconds),
                most=settings.preempt_most,
            )
            yield (
                Loop("ringer", timedelta(seconds=0.1), call, rest=wakeups.rest, is_routine=True),
                _loop("promoter", 0.2, partial(promoter.run_once, sessions), is_routine=True),
                Loop("sender", timedelta(seconds=0.2), sender.run_once, rest=sender.rest, is_routine=True),
                _loop("releaser", 1, partial(releaser.run_once, sessions)),
                _loop("reaper", 1, reap),
                _loop("expirer", 1, partial(expirer.run_once, sessions)),
                _loop("preemptor", 1, preempt),
                _loop("families", 1, partial(families.run_once, sessions)),
                _loop("learner", 10, partial(learner.run_once, sessions), is_routine=True),
                _loop("forgetter", 10, partial(forgetter.run_once, sessions)),
                _loop("cleaner", 60, Cleaner(sessions, store, Kept.of(settings)).run_once),
                _loop("sweeper", 300, Sweeper(sessions, store).run_once),
                _loop("selftester", 1, self_tester.run_once),
                _loop("watcher", 60, partial(watcher.run_once, sessions)),
            )
    finally:
        self_tester.stop()
        await wakeups.close()
        celery.close()
        engine.dispose()


def _loop(name: str, seconds: float, run_once: Callable[[], DataclassInstance], *, is_routine: bool = False) -> Loop:
    """A loop whose pass waits for Postgres or the broker, and so has a thread."""
    return Loop(name, timedelta(seconds=seconds), partial(asyncio.to_thread, run_once), is_routine=is_routine)


def _register(sessions: sessionmaker[Session], settings: Settings) -> None:
    fetched = _fetch(settings.models)
    with sessions.begin() as session:
        names = register(session, pool=settings.pool, locations=settings.models, fetched=fetched)
    log.info("registered", pool=settings.pool, models=names)


def _fetch(locations: Sequence[str]) -> dict[str, Path]:
    """Where the configurations of hub ids lie; those that cannot be had now are left out."""
    folders: dict[str, Path] = {}
    for location in locations:
        try:
            folders[location] = local_folder(location, READ)
        except EngineError as error:
            log.warning("model.unread", model=location, error=str(error))
    return folders


async def _run_until_told(settings: Settings) -> None:
    task = asyncio.ensure_future(maintain(settings))
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, task.cancel)
    with suppress(asyncio.CancelledError):
        await task


def main() -> None:
    """Run until told to stop."""
    settings = Settings()
    configure_logging("maintain")
    asyncio.run(_run_until_told(settings))


if __name__ == "__main__":
    main()
