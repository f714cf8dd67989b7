"""The GPU child seen from the supervisor: started, spoken to over a pipe, and killed when it must be.

Only the child imports torch. A crash, an out-of-memory or a hung kernel costs the child alone: the supervisor
reports it and starts another. The child exits by itself when the pipe closes.
"""

from __future__ import annotations

import contextlib
import socket
import subprocess
import sys
from multiprocessing.connection import Connection
from typing import Protocol

from workers.protocol import Ready, Shutdown, ToChild, ToParent

_BOOT_SECONDS = 120.0  # importing torch from a cold disk
_STOP_SECONDS = 10.0


class ChildLost(Exception):
    """The child died, or was killed, with work in hand."""


class Child(Protocol):
    """What handlers need of a GPU child."""

    def send(self, message: ToChild) -> None:
        """Give the child a message; raises ChildLost."""

    def receive(self, seconds: float) -> ToParent | None:
        """The child's next message, or None when none came in time; raises ChildLost."""

    def kill(self) -> None:
        """End the child and forget what it said."""


class GpuChild:
    """One engine process, used by one thread."""

    def __init__(
        self,
        *,
        device: str,
        threads: int = 1,
        batch_size: int = 8,
        model_bytes: int = 0,
        compiled: bool = False,
        distillation_processes: int = 0,
        safety_checker: str | None = None,
        safety_threshold: float = 0.8,
    ) -> None:
        """Zeros stand for what the engine finds best on its device; without a checker nothing is judged."""
        self._flags = ["--compile"] if compiled else []
        self._arguments = {
            "device": device,
            "threads": threads,
            "batch-size": batch_size,
            "model-bytes": model_bytes,
            "distillation-processes": distillation_processes,
            "safety-threshold": safety_threshold,
        }
        if safety_checker is not None:
            self._arguments["safety-checker"] = safety_checker
        self._process: subprocess.Popen[bytes] | None = None
        self._pipe: Connection | None = None
        self.device_name: str | None = None
        self.gpu: str | None = None  # the id that the engine's GPU has in every process

    def ensure_running(self) -> None:
        """Start the child unless it runs; returns when it is ready for work. Raises ChildLost if it never is."""
        if self.pid is not None:
            return
        self.kill()
        ours, theirs = socket.socketpair()
        with theirs:
            arguments = [f"--{name}={value}" for name, value in {"fd": theirs.fileno(), **self._arguments}.items()]
            self._process = subprocess.Popen(
                [sys.executable, "-m", "workers.engine", *arguments, *self._flags],
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
            )
        self._pipe = Connection(ours.detach())
        ready = self.receive(_BOOT_SECONDS)
        if not isinstance(ready, Ready):
            self.kill()
            raise ChildLost(f"The engine did not come up: {ready!r}.")
        self.device_name, self.gpu = ready.device_name, ready.gpu

    @property
    def pid(self) -> int | None:
        """The running child's process id."""
        return None if self._process is None or self._process.poll() is not None else self._process.pid

    def send(self, message: ToChild) -> None:
        """Give the child a message; raises ChildLost."""
        if self._pipe is None:
            raise ChildLost("The engine is not running.")
        try:
            self._pipe.send(message)
        except OSError as error:
            raise ChildLost(self._bury()) from error

    def receive(self, seconds: float) -> ToParent | None:
        """The child's next message, or None when none came in time; raises ChildLost."""
        if self._pipe is None:
            raise ChildLost("The engine is not running.")
        try:
            if not self._pipe.poll(seconds):
                return None
            message: ToParent = self._pipe.recv()
        except (EOFError, OSError) as error:
            raise ChildLost(self._bury()) from error
        return message

    def kill(self) -> None:
        """End the child at once, whatever it is doing, and forget what it said; the next start is a fresh one."""
        if self._pipe is not None:
            self._pipe.close()
            self._pipe = None
        if self._process is not None:
            self._process.kill()
            with contextlib.suppress(subprocess.TimeoutExpired):  # stuck in its driver: it is dead when that lets go
                self._process.wait(_STOP_SECONDS)
            self._process = None

    def close(self) -> None:
        """Ask the child to leave, and make it."""
        if self._process is not None and self._pipe is not None:
            with contextlib.suppress(OSError, subprocess.TimeoutExpired):
                self._pipe.send(Shutdown())
                self._process.wait(_STOP_SECONDS)
        self.kill()

    def _bury(self) -> str:
        process = self._process
        self.kill()
        return f"The engine process ended with status {None if process is None else process.returncode}."
