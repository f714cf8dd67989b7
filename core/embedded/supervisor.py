"""Keeps units running: starts them in order, starts a crashed one again, stops them in the reverse order.

One thread, one loop: units write to their own logs, so there is nothing to read between two looks at them.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from typing import Protocol, runtime_checkable

from core.embedded.errors import ProcessFailed
from core.embedded.process import Process, failure

_FIRST_PAUSE = timedelta(seconds=0.5)
_LONGEST_PAUSE = timedelta(seconds=30)
_HEALTHY_AFTER = timedelta(seconds=60)  # a crash after so long is a new story, with the first pause again
_FAILURES_AT_START = 3
_TEST_EVERY = timedelta(seconds=5)
_FAILED_TESTS = 3  # in a row, after which a unit that tests itself is started again


class Unit(Protocol):
    """A server or a part: a process, and what it takes to start it."""

    @property
    def process(self) -> Process:
        """The process behind the unit."""

    def start(self) -> None:
        """Start the process; a server returns when it is ready."""


@runtime_checkable
class SelfTesting(Protocol):
    """A unit that may run and yet not do its work."""

    def is_well(self) -> bool:
        """Whether it does its work; answers at once."""


@dataclass
class _Watched:
    unit: Unit
    started_at: float
    failures: int = 0
    restart_at: float | None = None
    tested_at: float = 0.0
    failed_tests: int = 0


class Supervisor:
    """Watches units; ``report`` tells the operator what happened, ``clock`` counts seconds."""

    def __init__(self, *, report: Callable[[str], None], clock: Callable[[], float]) -> None:
        self._report = report
        self._clock = clock
        self._groups: list[list[_Watched]] = []

    def start(self, *units: Unit) -> None:
        """Start units, one after the other, as a group that is stopped together."""
        group: list[_Watched] = []
        self._groups.append(group)
        for unit in units:
            group.append(_Watched(unit, started_at=self._clock()))
            unit.start()

    def watch_once(self) -> None:
        """Look at every unit once; start again those that ended or do not do their work, each after its pause."""
        for watched in (watched for group in self._groups for watched in group):
            if watched.restart_at is None:
                code = watched.unit.process.exit_code()
                if code is not None:
                    self._plan_restart(watched, f"ended with code {code}")
                elif isinstance(watched.unit, SelfTesting) and self._is_unwell(watched, watched.unit):
                    watched.unit.process.stop()
                    self._plan_restart(watched, "ran, and did not do its work")
            elif self._clock() >= watched.restart_at:
                self._restart(watched)

    def refuse_crash_loops(self) -> None:
        """At the first start, where an operator looks on, give up instead of trying for ever.

        Raises:
            ProcessFailed: when a unit has failed several times in a row.
        """
        for watched in (watched for group in self._groups for watched in group):
            if watched.failures >= _FAILURES_AT_START:
                raise failure(watched.unit.process, f"failed {watched.failures} times in a row")

    def stop(self) -> None:
        """Stop every unit, the last group first; a second Ctrl-C meanwhile kills what is left."""
        try:
            while self._groups:
                group = self._groups[-1]
                for watched in group:
                    watched.unit.process.ask_to_stop()
                for watched in group:
                    watched.unit.process.stop()
                self._groups.pop()
        finally:
            for watched in (watched for group in self._groups for watched in group):
                watched.unit.process.kill()

    def _plan_restart(self, watched: _Watched, what: str) -> None:
        now = self._clock()
        if now - watched.started_at > _HEALTHY_AFTER.total_seconds():
            watched.failures = 0
        pause = min(_FIRST_PAUSE * 2**watched.failures, _LONGEST_PAUSE)
        watched.failures += 1
        watched.restart_at = now + pause.total_seconds()
        process = watched.unit.process
        self._report(f"{process.name} {what}; starting it again in {pause.total_seconds():g} s (see {process.log})")

    def _is_unwell(self, watched: _Watched, unit: SelfTesting) -> bool:
        now = self._clock()
        if now - max(watched.started_at, watched.tested_at) < _TEST_EVERY.total_seconds():
            return False
        watched.tested_at = now
        watched.failed_tests = 0 if unit.is_well() else watched.failed_tests + 1
        return watched.failed_tests >= _FAILED_TESTS

    def _restart(self, watched: _Watched) -> None:
        watched.started_at, watched.failed_tests = self._clock(), 0
        try:
            watched.unit.start()
        except ProcessFailed:
            self._plan_restart(watched, "did not become ready")
        else:
            watched.restart_at = None
