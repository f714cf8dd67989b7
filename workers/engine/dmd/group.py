"""Processes that work together under `accelerate launch`, and the one that started them.

A socket pair holds them together: the starter has one end, and the launcher and all processes have the other as their
standard input, which is what every process inherits through any launcher. It keeps messages whole, whoever sends them.

    starter's end closes     the starter died or has had enough: every process ends itself at once
    starter reads the end    the launcher and every process are gone
    a process dies           the launcher ends the others

What travels is pickled: both ends are ours and run the same code.
"""

from __future__ import annotations

import contextlib
import os
import pickle
import select
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from workers.engine.errors import ProcessesLost

_LARGEST = 2**17  # bytes of a message
_STOP: Final = b"stop"
_LEAVE_SECONDS = 30.0  # for processes that have done their work, or were told to go
_STARTER_DIED = 3  # exit status


class Group:
    """``processes`` runs of ``python -m module``, each with the same ``task``; all are gone when the block ends.

    They read the task from ``folder``, which whoever survives this process is to remove.
    """

    def __init__(self, module: str, task: object, *, processes: int, folder: Path) -> None:
        self._stop_asked = False
        path = folder / "task"
        path.write_bytes(pickle.dumps(task))
        self._socket, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            self._launcher = subprocess.Popen(
                [*_launch(processes), "--module", module, str(path)],
                stdin=theirs.fileno(),
                start_new_session=True,  # signals to our group are the supervisor's to act on, not the ranks'
            )

    def __enter__(self) -> Self:
        return self

    def receive(self, seconds: float) -> object | None:
        """Return the next message, or None when none came in time; raises ProcessesLost."""
        ready, _, _ = select.select([self._socket], [], [], seconds)
        if ready:
            if packet := self._packet():
                message: object = pickle.loads(packet)  # noqa: S301 - from our own processes
                return message
        elif self._launcher.poll() is None:
            return None
        raise ProcessesLost("a process of the distillation ended unexpectedly, and the others with it")

    def stop(self) -> None:
        """Ask for a stop at the next step; asking again changes nothing."""
        if not self._stop_asked:
            self._stop_asked = True
            with contextlib.suppress(OSError):  # they have gone, as `receive` will say
                self._socket.send(_STOP)

    def __exit__(
        self, kind: type[BaseException] | None, _error: BaseException | None, _trace: TracebackType | None
    ) -> None:
        if kind is None:
            self._await_end()
        self._socket.shutdown(socket.SHUT_WR)
        self._await_end()
        self._launcher.kill()
        self._launcher.wait()
        self._socket.close()

    def _await_end(self) -> None:
        """Pass over messages until nobody is left to send any, but not for ever."""
        deadline = time.monotonic() + _LEAVE_SECONDS
        while (left := deadline - time.monotonic()) > 0 and select.select([self._socket], [], [], left)[0]:
            if not self._packet():
                return

    def _packet(self) -> bytes:
        """Return what waits to be read, nothing at the end."""
        with contextlib.suppress(ConnectionResetError):  # said once, if they left without reading of a stop
            return self._socket.recv(_LARGEST)
        return self._socket.recv(_LARGEST)


class Seat:
    """A process's place in its group."""

    def __init__(self) -> None:
        """Take the socket off standard input, and end this process once the starter has gone."""
        self._socket = socket.socket(fileno=os.dup(0))
        with Path(os.devnull).open() as nothing:
            os.dup2(nothing.fileno(), 0)  # so that no process started from here holds the socket
        self._stop_asked = False
        threading.Thread(target=self._watch, name="watch", daemon=True).start()

    @staticmethod
    def task(path: Path) -> object:
        """Read what the group is to do."""
        task: object = pickle.loads(path.read_bytes())  # noqa: S301 - from our own starter
        return task

    def send(self, message: object) -> None:
        """Tell the starter; any process may."""
        try:
            self._socket.send(pickle.dumps(message))
        except OSError:
            os._exit(_STARTER_DIED)

    def stop_asked(self) -> bool:
        """Tell whether the starter wants a stop; for one process alone, as only one would hear of it."""
        if not self._stop_asked:
            with contextlib.suppress(BlockingIOError):
                self._stop_asked = self._socket.recv(_LARGEST, socket.MSG_DONTWAIT) == _STOP
        return self._stop_asked

    def _watch(self) -> None:
        end = select.poll()
        end.register(self._socket, select.POLLRDHUP)
        end.poll()
        os._exit(_STARTER_DIED)


def _launch(processes: int) -> list[str]:
    """Everything that the launcher would otherwise guess, or read from its user's own configuration."""
    return [
        "env", "GLOO_SOCKET_IFNAME=lo", "NCCL_SOCKET_IFNAME=lo",  # all are on this machine: no network is to see them
        sys.executable, "-m", "accelerate.commands.launch",
        "--multi_gpu",  # on CPUs too, where --cpu would start a single process; which of both is rank.py's to say
        "--num_machines", "1",
        "--num_processes", str(processes),
        "--gpu_ids", "all",
        "--main_process_port", "0",  # any that is free
        "--num_cpu_threads_per_process", "1",
        "--mixed_precision", "no",
        "--dynamo_backend", "no",
    ]  # fmt: skip
