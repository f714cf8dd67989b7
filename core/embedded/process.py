"""One child process: its own session, its output in a log file, and never outliving its parent.

A child leads its own session, so that Ctrl-C in the terminal reaches the supervisor alone and parts stop in the
supervisor's order. On Linux the kernel signals the child when its parent dies, so that ``kill -9`` of the
supervisor leaves nothing behind; elsewhere only an orderly stop ends the children.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import BinaryIO

from core.embedded.errors import ProcessFailed

_PR_SET_PDEATHSIG = 1  # <linux/prctl.h>


@dataclass(frozen=True)
class Account:
    """The user a child runs as."""

    uid: int
    gid: int


@dataclass(kw_only=True)
class Process:
    """A program that can be started, watched and stopped, again and again."""

    name: str
    command: tuple[str, ...]
    log: Path
    environment: Mapping[str, str]
    account: Account | None = None
    stop_signal: signal.Signals = signal.SIGTERM
    orphan_signal: signal.Signals = signal.SIGKILL
    patience: timedelta = timedelta(seconds=10)
    log_limit_bytes: int = 20 * 1024 * 1024
    _popen: subprocess.Popen[bytes] | None = field(default=None, init=False, repr=False)
    _asked_to_stop: bool = field(default=False, init=False, repr=False)

    @property
    def pid(self) -> int | None:
        """The process id, once started."""
        return None if self._popen is None else self._popen.pid

    def start(self) -> None:
        """Start the program; its output is appended to ``log``.

        The kernel ties the child to the *thread* that starts it, so this is called from the main thread.
        """
        self._asked_to_stop = False
        with _open_log(self.log, limit_bytes=self.log_limit_bytes) as log:
            self._popen = subprocess.Popen(
                self.command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env=dict(self.environment),
                start_new_session=True,
                user=None if self.account is None else self.account.uid,
                group=None if self.account is None else self.account.gid,
                extra_groups=None if self.account is None else [],
                preexec_fn=_tie_to_parent(self.orphan_signal),  # noqa: PLW1509 - calls into C only, loaded before
            )

    def exit_code(self) -> int | None:
        """How the program ended; None while it runs or before it was started."""
        return None if self._popen is None else self._popen.poll()

    def ask_to_stop(self) -> None:
        """Send the signal to stop, once, and return: to some programs a second one means to drop everything."""
        if self._popen is not None and self._popen.poll() is None and not self._asked_to_stop:
            self._popen.send_signal(self.stop_signal)
            self._asked_to_stop = True

    def stop(self) -> None:
        """Ask the program to stop; kill it and whatever it started when ``patience`` runs out."""
        if self._popen is None:
            return
        self.ask_to_stop()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._popen.wait(self.patience.total_seconds())
        self.kill()

    def kill(self) -> None:
        """End the program and what is left of its session at once."""
        if self._popen is None:
            return
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._popen.pid, signal.SIGKILL)
        self._popen.wait()


def wait_until(is_ready: Callable[[], bool], *, process: Process, within: timedelta) -> None:
    """Wait until ``is_ready``.

    Raises:
        ProcessFailed: when ``process`` ends first, or is not ready in time and is therefore killed.
    """
    deadline = time.monotonic() + within.total_seconds()
    while not is_ready():
        code = process.exit_code()
        if code is not None:
            raise failure(process, f"ended with code {code}")
        if time.monotonic() > deadline:
            process.kill()
            raise failure(process, f"was not ready in {within.total_seconds():.0f} s")
        time.sleep(0.02)


def failure(process: Process, what: str) -> ProcessFailed:
    """What happened to ``process``, with the last lines of its log."""
    return ProcessFailed(f"{process.name} {what}; {process.log} ends:\n{log_tail(process.log)}")


def log_tail(log: Path, *, lines: int = 15) -> str:
    """The last lines of a log, for an error message."""
    text = log.read_text(errors="replace") if log.exists() else ""
    return "\n".join(text.splitlines()[-lines:])


def _open_log(path: Path, *, limit_bytes: int) -> BinaryIO:
    """Open a log for appending; what grew past the limit is set aside as ``NAME.log.1`` first."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    if path.exists() and path.stat().st_size > limit_bytes:
        path.replace(path.with_name(path.name + ".1"))
    return path.open("ab")


def _tie_to_parent(orphan_signal: signal.Signals) -> Callable[[], None] | None:
    """What the child does before it becomes the program: ask the kernel for a signal at its parent's death."""
    if sys.platform != "linux":
        return None
    libc = ctypes.CDLL(None)  # loaded before the fork: the child of a fork should do as little as it can
    parent = os.getpid()

    def tie() -> None:
        libc.prctl(_PR_SET_PDEATHSIG, orphan_signal)
        if os.getppid() != parent:  # it died before the request stood
            os._exit(1)

    return tie
