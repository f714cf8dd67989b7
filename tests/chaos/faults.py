"""Doing each kind of fault to a rig. What lasts returns how it is ended."""

from __future__ import annotations

import heapq
import itertools
import os
import signal
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field

import psutil
import psycopg
import redis

from core.embedded.process import Process
from tests.chaos.plan import Fault, Kind
from tests.chaos.rig import Rig

Heal = Callable[[], None]
_SHIFTS = (-7200, -600, -30, 30, 600, 7200)  # seconds
_HUNT_SECONDS = 2.0  # for backends in mid-commit


@dataclass
class Done:
    """A fault that was made: when it began and when it was over, on this machine's clock."""

    kind: Kind
    began: float
    over: float
    note: str = ""


class Nobody(Exception):
    """There was nobody to do it to: it was down already."""


@dataclass
class Nemesis:
    """Goes through a plan in a thread of its own."""

    rig: Rig
    faults: Sequence[Fault]
    done: list[Done] = field(default_factory=list)
    missed: list[tuple[Kind, str]] = field(default_factory=list)
    _stop: threading.Event = field(default_factory=threading.Event)
    _healing: list[tuple[float, int, Heal, Done]] = field(default_factory=list)
    _order: itertools.count[int] = field(default_factory=itertools.count)

    def run(self) -> None:
        """Make every fault at its time, and end those that last; returns when all are over."""
        started, possible = time.monotonic(), self.rig.possible()
        for fault in self.faults:
            self._heal_until(started + fault.at)
            if fault.kind not in possible:
                self.missed.append((fault.kind, "there is none here"))
                continue
            try:
                self._inject(fault)
            except (Nobody, ProcessLookupError, psutil.Error, psycopg.Error, redis.RedisError, OSError) as error:
                self.missed.append((fault.kind, repr(error)))
        self._heal_until(max((at for at, *_ in self._healing), default=0.0))

    def _heal_until(self, deadline: float) -> None:
        while self._healing and self._healing[0][0] <= deadline:
            at, _, heal, done = heapq.heappop(self._healing)
            time.sleep(max(0.0, at - time.monotonic()))
            with suppress(ProcessLookupError):
                heal()
            done.over = time.time()
        time.sleep(max(0.0, deadline - time.monotonic()))

    def _inject(self, fault: Fault) -> None:
        began = time.time()
        made = Done(fault.kind, began, began)
        heal = _MAKE[fault.kind](self.rig, fault, made)
        made.over = time.time()
        self.done.append(made)
        if heal is not None:
            heapq.heappush(self._healing, (time.monotonic() + fault.seconds, next(self._order), heal, made))


def _one(rig: Rig, prefix: str, fault: Fault) -> str:
    running = [name for name in rig.names(prefix) if rig.pid(name) is not None]
    if not running:
        raise Nobody(prefix)
    return running[fault.choose(len(running))]


def _kill_part(prefix: str) -> Callable[[Rig, Fault, Done], None]:
    def make(rig: Rig, fault: Fault, made: Done) -> None:
        made.note = _one(rig, prefix, fault)
        os.kill(_living(rig.pid(made.note)), signal.SIGKILL)

    return make


def _kill_child(rig: Rig, fault: Fault, made: Done) -> None:
    made.note = _one(rig, "worker", fault)
    children = rig.children(made.note)
    if not children:
        raise Nobody("child")
    children[0].kill()


def _kill_server(server: Callable[[Rig], Process]) -> Callable[[Rig, Fault, Done], None]:
    def make(rig: Rig, fault: Fault, made: Done) -> None:
        os.kill(_living(server(rig).pid), signal.SIGKILL)

    return make


def _stop_group(pid: Callable[[Rig, Fault, Done], int]) -> Callable[[Rig, Fault, Done], Heal]:
    """Freeze a process and all of its session: a machine that hangs."""

    def make(rig: Rig, fault: Fault, made: Done) -> Heal:
        leader = psutil.Process(pid(rig, fault, made))
        family = [leader, *leader.children(recursive=True)]
        _each(family, psutil.Process.suspend)

        def go_on() -> None:
            _each(reversed(family), psutil.Process.resume)

        return go_on

    return make


def _each(family: Iterable[psutil.Process], act: Callable[[psutil.Process], None]) -> None:
    """Do it to those that are still there: nobody may stay frozen because another one left."""
    for process in family:
        with suppress(psutil.NoSuchProcess):
            act(process)


def _part(prefix: str) -> Callable[[Rig, Fault, Done], int]:
    def pid(rig: Rig, fault: Fault, made: Done) -> int:
        made.note = _one(rig, prefix, fault)
        return _living(rig.pid(made.note))

    return pid


def _living(pid: int | None) -> int:
    if pid is None:
        raise Nobody
    return pid


def _empty_broker(rig: Rig, fault: Fault, made: Done) -> None:
    with redis.Redis.from_url(rig.valkey.url, socket_timeout=2) as client:
        client.flushall()


def _swallow(server: str) -> Callable[[Rig, Fault, Done], Heal]:
    def make(rig: Rig, fault: Fault, made: Done) -> Heal:
        links = rig.proxies[server].swallow()
        made.note = f"{len(links)} connections"
        return lambda: rig.network.reset(links)

    return make


def _cut_commits(rig: Rig, fault: Fault, made: Done) -> Heal:
    proxy = rig.proxies["postgres"]
    before = proxy.commits_cut
    proxy.cut_commits(on=True)

    def stop() -> None:
        proxy.cut_commits(on=False)
        made.note = f"{proxy.commits_cut - before} commits"

    return stop


_AT_COMMIT = """
    SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity
    WHERE backend_type = 'client backend' AND state = 'active' AND query ILIKE 'COMMIT%'
"""
_IN_TRANSACTION = """
    SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity
    WHERE backend_type = 'client backend' AND pid <> pg_backend_pid() AND xact_start IS NOT NULL
"""


def _end_backends(rig: Rig, fault: Fault, made: Done) -> None:
    """Hunt for backends that commit; then end whatever is in a transaction."""
    deadline = time.monotonic() + _HUNT_SECONDS
    committing = others = 0
    with rig.postgres.superuser() as connection:
        while time.monotonic() < deadline:
            committing += _count(connection, _AT_COMMIT)
        others += _count(connection, _IN_TRANSACTION)
    made.note = f"{committing} in commit, {others} in a transaction"


def _count(connection: psycopg.Connection, sql: str) -> int:
    row = connection.execute(sql.encode()).fetchone()
    assert row is not None
    return int(row[0])


def _fill(disk: str) -> Callable[[Rig, Fault, Done], Heal]:
    def make(rig: Rig, fault: Fault, made: Done) -> Heal:
        rig.disks[disk].fill()
        return rig.disks[disk].empty

    return make


def _shift_clock(rig: Rig, fault: Fault, made: Done) -> Heal:
    victims = list(rig.clocks)
    name = victims[fault.choose(len(victims))]
    shift = _SHIFTS[int(fault.draw * len(victims) * len(_SHIFTS)) % len(_SHIFTS)]
    made.note = f"{name} by {shift:+d} s"
    rig.clocks[name].shift(shift)
    return lambda: rig.clocks[name].shift(0)


_MAKE: dict[Kind, Callable[[Rig, Fault, Done], Heal | None]] = {
    Kind.KILL_WORKER: _kill_part("worker"),
    Kind.KILL_CHILD: _kill_child,
    Kind.KILL_API: _kill_part("api"),
    Kind.KILL_MAINTAIN: _kill_part("maintain"),
    Kind.KILL_POSTGRES: _kill_server(lambda rig: rig.postgres.process),
    Kind.KILL_BROKER: _kill_server(lambda rig: rig.valkey.process),
    Kind.KILL_STORE: _kill_server(lambda rig: rig.seaweed.process),
    Kind.EMPTY_BROKER: _empty_broker,
    Kind.STOP_WORKER: _stop_group(_part("worker")),
    Kind.STOP_MAINTAIN: _stop_group(_part("maintain")),
    Kind.STOP_BROKER: _stop_group(lambda rig, _fault, _made: _living(rig.valkey.process.pid)),
    Kind.STOP_POSTGRES: _stop_group(lambda rig, _fault, _made: _living(rig.postgres.process.pid)),
    Kind.HOLE_POSTGRES: _swallow("postgres"),
    Kind.HOLE_BROKER: _swallow("broker"),
    Kind.HOLE_STORE: _swallow("store"),
    Kind.CUT_COMMITS: _cut_commits,
    Kind.END_BACKENDS: _end_backends,
    Kind.FILL_POSTGRES: _fill("postgres"),
    Kind.FILL_STORE: _fill("store"),
    Kind.SHIFT_CLOCK: _shift_clock,
}
