"""A small stack in a process of its own, as an operator would start it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

import psycopg

from core.config import Settings
from core.embedded.stack import running_settings
from tests.waiting import eventually

PROJECT = Path(__file__).resolve().parents[3]
COMMAND = (sys.executable, "-m", "tests.integration.embedded.small_stack")


class RunningStack:
    """``with RunningStack(folder) as stack``: ready when entered, without any process when left."""

    def __init__(
        self, folder: Path, *, environment: Mapping[str, str] | None = None, prefix: Sequence[str] = ()
    ) -> None:
        self.folder = folder
        self._process = subprocess.Popen(
            [*prefix, *COMMAND],
            cwd=PROJECT,
            env={**os.environ, "LOCKSTEP_DATA_DIR": str(folder), **(environment or {})},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        self.lines: list[str] = []
        self.url = self.read_until("ready ").split()[1]
        assert eventually(lambda: len(self.workers()) > 0)
        self.pids = {self._process.pid, *_descendants(self._process.pid)}

    def read_until(self, start: str) -> str:
        """The next line of output that begins with ``start``."""
        assert self._process.stdout is not None
        for line in self._process.stdout:
            self.lines.append(line)
            if line.startswith(start):
                return line
        raise AssertionError("".join(self.lines))

    def settings(self) -> Settings:
        """The settings that the stack left for the operator's commands."""
        return running_settings(Settings(data_dir=self.folder))

    def connect(self) -> psycopg.Connection:
        """A connection to the stack's database, as its owner."""
        dsn = self.settings().owner_dsn.set(drivername="postgresql")
        return psycopg.connect(dsn.render_as_string(), autocommit=True)

    def workers(self) -> list[dict[str, str]]:
        """What each worker, the restarted ones included, said about itself."""
        log = self.folder / "logs" / "worker.log"
        return [json.loads(line) for line in log.read_text().splitlines()] if log.exists() else []

    def end(self, number: signal.Signals) -> int:
        """Send a signal to the supervisor alone; its exit code."""
        self._process.send_signal(number)
        return self._process.wait(timeout=30)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._process.terminate()
        self._process.communicate(timeout=30)


def _descendants(pid: int) -> set[int]:
    children = {
        int(child) for file in Path(f"/proc/{pid}/task").glob("*/children") for child in file.read_text().split()
    }
    return children.union(*map(_descendants, children))
