from __future__ import annotations

import time
from datetime import timedelta
from pathlib import Path

import pytest

from core.embedded.errors import ProcessFailed
from core.embedded.process import Process, wait_until
from core.embedded.supervisor import Supervisor


class Clock:
    """Seconds that pass when told to."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


class ShellUnit:
    """A unit that runs a line of shell."""

    def __init__(self, name: str, script: str, folder: Path) -> None:
        self.process = Process(name=name, command=("/bin/sh", "-c", script), log=folder / f"{name}.log", environment={})
        self.starts = 0

    def start(self) -> None:
        self.starts += 1
        self.process.start()


class AilingUnit(ShellUnit):
    """One that says how it is."""

    well = True

    def is_well(self) -> bool:
        return self.well


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def reports() -> list[str]:
    return []


@pytest.fixture
def supervisor(clock: Clock, reports: list[str]) -> Supervisor:
    return Supervisor(report=reports.append, clock=clock)


def _crash(supervisor: Supervisor, unit: ShellUnit) -> None:
    """Let the unit's process end and the supervisor see it."""
    while unit.process.exit_code() is None:
        time.sleep(0.001)
    supervisor.watch_once()


def test_a_crashed_unit_is_started_again_after_a_pause_that_doubles(
    supervisor: Supervisor, clock: Clock, reports: list[str], tmp_path: Path
) -> None:
    unit = ShellUnit("api", "exit 3", tmp_path)
    supervisor.start(unit)
    for crash, pause in enumerate([0.5, 1, 2, 4, 8, 16, 30, 30], start=1):
        _crash(supervisor, unit)
        clock.now += pause - 0.01
        supervisor.watch_once()
        assert unit.starts == crash
        clock.now += 0.02
        supervisor.watch_once()
        assert unit.starts == crash + 1
    assert reports[1].startswith("api ended with code 3; starting it again in 1 s")
    supervisor.stop()


def test_a_unit_that_ran_well_for_long_is_started_again_soon(
    supervisor: Supervisor, clock: Clock, reports: list[str], tmp_path: Path
) -> None:
    unit = ShellUnit("api", "exit 3", tmp_path)
    supervisor.start(unit)
    for _ in range(3):
        _crash(supervisor, unit)
        clock.now += 30
        supervisor.watch_once()
    clock.now += 61
    _crash(supervisor, unit)
    assert "again in 0.5 s" in reports[-1]
    supervisor.stop()


def test_a_unit_that_runs_is_left_alone(supervisor: Supervisor, reports: list[str], tmp_path: Path) -> None:
    unit = ShellUnit("api", "sleep 60", tmp_path)
    supervisor.start(unit)
    supervisor.watch_once()
    supervisor.refuse_crash_loops()
    assert (unit.starts, reports) == (1, [])
    supervisor.stop()


def test_a_unit_that_cannot_be_started_again_is_tried_again(
    supervisor: Supervisor, clock: Clock, reports: list[str], tmp_path: Path
) -> None:
    unit = ShellUnit("postgres", "exit 1", tmp_path)
    supervisor.start(unit)
    _crash(supervisor, unit)
    unit.start = lambda: wait_until(lambda: False, process=unit.process, within=timedelta(0))  # type: ignore[method-assign]
    clock.now += 1
    supervisor.watch_once()
    assert reports[-1].startswith("postgres did not become ready; starting it again in 1 s")
    supervisor.stop()


def test_a_crash_loop_at_the_first_start_is_an_error_with_the_end_of_the_log(
    supervisor: Supervisor, clock: Clock, tmp_path: Path
) -> None:
    unit = ShellUnit("api", "echo bad setting; exit 1", tmp_path)
    supervisor.start(unit)
    for _ in range(2):
        _crash(supervisor, unit)
        supervisor.refuse_crash_loops()
        clock.now += 5
        supervisor.watch_once()
    _crash(supervisor, unit)
    with pytest.raises(ProcessFailed, match=r"api failed 3 times in a row.*\n.*bad setting"):
        supervisor.refuse_crash_loops()
    supervisor.stop()


def test_the_last_group_stops_first_and_the_servers_outlive_the_parts(supervisor: Supervisor, tmp_path: Path) -> None:
    order = tmp_path / "order"
    script = "trap 'echo {0} >> {1}; exit' TERM; echo ready; while :; do sleep 0.01; done"
    units = {name: ShellUnit(name, script.format(name, order), tmp_path) for name in ("database", "api", "worker")}
    supervisor.start(units["database"])
    supervisor.start(units["api"], units["worker"])
    for unit in units.values():
        wait_until(unit.process.log.read_text, process=unit.process, within=timedelta(seconds=20))  # type: ignore[arg-type]
    supervisor.stop()
    stopped = order.read_text().split()
    assert (sorted(stopped), stopped[-1]) == (["api", "database", "worker"], "database")


def test_a_unit_that_runs_and_does_not_do_its_work_is_started_again(
    supervisor: Supervisor, clock: Clock, reports: list[str], tmp_path: Path
) -> None:
    unit = AilingUnit("store", "sleep 60", tmp_path)
    supervisor.start(unit)

    def look(times: int) -> None:
        for _ in range(times):
            clock.now += 5.01
            supervisor.watch_once()

    look(2)
    unit.well = False
    look(2)
    unit.well = True
    look(1)
    unit.well = False
    look(2)
    assert (unit.starts, reports) == (1, [])
    look(1)
    assert unit.process.exit_code() is not None
    assert "ran, and did not do its work" in reports[0]
    unit.well = True
    look(2)
    assert unit.starts == 2
    supervisor.stop()
