from __future__ import annotations

import os
import time
from datetime import timedelta
from pathlib import Path

import pytest

from core.embedded.errors import ProcessFailed
from core.embedded.process import Process, wait_until
from tests.waiting import eventually, is_alive

_LONG = timedelta(seconds=20)


def _shell(script: str, folder: Path, *, patience: timedelta = _LONG) -> Process:
    return Process(
        name="part",
        command=("/bin/sh", "-c", script),
        log=folder / "part.log",
        environment={"GREETING": "hello"},
        patience=patience,
    )


def _run(process: Process) -> None:
    process.start()
    while process.exit_code() is None:
        time.sleep(0.001)


def _wait_for_line(process: Process, line: str) -> None:
    wait_until(lambda: line in process.log.read_text().split(), process=process, within=_LONG)


def test_a_process_has_the_environment_it_was_given_and_no_other(tmp_path: Path) -> None:
    process = _shell('echo "[$GREETING] [$HOME]"', tmp_path)
    _run(process)
    assert process.log.read_text() == "[hello] []\n"


def test_a_process_that_ignores_the_signal_to_stop_is_killed_when_patience_ends(tmp_path: Path) -> None:
    process = _shell("trap '' TERM; echo ready; sleep 60", tmp_path, patience=timedelta(milliseconds=50))
    process.start()
    _wait_for_line(process, "ready")
    process.stop()
    assert process.exit_code() == -9


def test_stopping_takes_what_the_process_started_with_it(tmp_path: Path) -> None:
    process = _shell("sleep 60 & echo $! ready; wait", tmp_path)
    process.start()
    _wait_for_line(process, "ready")
    grandchild = int(process.log.read_text().split()[0])
    process.stop()
    assert eventually(lambda: not is_alive(grandchild))


def test_the_signal_to_stop_is_sent_once(tmp_path: Path) -> None:
    process = _shell("trap 'echo asked' TERM; echo ready; sleep 0.2; sleep 0.2; exit 0", tmp_path)
    process.start()
    _wait_for_line(process, "ready")
    process.ask_to_stop()
    process.stop()
    assert process.log.read_text().split().count("asked") == 1


def test_a_process_leads_its_own_session_so_that_ctrl_c_reaches_the_supervisor_alone(tmp_path: Path) -> None:
    process = _shell("sleep 60", tmp_path)
    process.start()
    assert process.pid is not None
    assert os.getsid(process.pid) == process.pid
    process.kill()


def test_waiting_for_a_process_that_ends_tells_how_and_the_end_of_its_log(tmp_path: Path) -> None:
    process = _shell("echo no such port; exit 7", tmp_path)
    process.start()
    with pytest.raises(ProcessFailed, match=r"part ended with code 7.*part\.log ends:\nno such port"):
        wait_until(lambda: False, process=process, within=_LONG)


def test_a_process_that_is_not_ready_in_time_is_killed(tmp_path: Path) -> None:
    process = _shell("sleep 60", tmp_path)
    process.start()
    with pytest.raises(ProcessFailed, match="was not ready in 0 s"):
        wait_until(lambda: False, process=process, within=timedelta(0))
    assert process.exit_code() == -9


def test_a_log_goes_on_after_a_restart_and_is_set_aside_when_it_is_too_long(
    tmp_path: Path,
) -> None:
    process = _shell("echo line", tmp_path)
    _run(process)
    _run(process)
    assert process.log.read_text() == "line\nline\n"
    process.log_limit_bytes = 5
    _run(process)
    assert process.log.read_text() == "line\n"
    assert (tmp_path / "part.log.1").read_text() == "line\nline\n"
