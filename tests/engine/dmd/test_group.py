"""Processes that live and die together, under the real launcher."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from tests.waiting import is_alive, until

# Deaf to SIGTERM as the GPU child is, which its children inherit; and unable to say goodbye when it is killed.
STARTER = """
import signal
import sys
from pathlib import Path
from workers.engine.dmd.group import Group

signal.signal(signal.SIGTERM, signal.SIG_IGN)
with Group("tests.engine.dmd.member", None, processes=2, folder=Path(sys.argv[1])) as group:
    print(group._launcher.pid, flush=True)
    while True:
        if (pid := group.receive(1)) is not None:
            print(pid, flush=True)
"""


def test_no_process_outlives_the_one_that_started_it(tmp_path: Path) -> None:
    command = [sys.executable, "-c", STARTER, str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as starter:
        assert starter.stdout is not None
        family = [int(starter.stdout.readline()) for _ in range(3)]
        assert all(is_alive(pid) for pid in family)
        starter.kill()
    until(lambda: not any(is_alive(pid) for pid in family))
