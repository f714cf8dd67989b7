"""The engine's process, with a test at the parent's end of its pipe."""

from __future__ import annotations

import socket
import subprocess
import sys
from collections.abc import Callable
from multiprocessing.connection import Connection
from typing import TypeVar

from workers import protocol

PATIENCE = 120  # seconds for any one message; nothing here takes more than a few
Message = TypeVar("Message")


class ChildProcess:
    """One child and our end of its pipe."""

    def __init__(self, *options: str) -> None:
        ours, theirs = socket.socketpair()
        command = [
            sys.executable,
            "-m",
            "workers.engine",
            "--fd",
            str(theirs.fileno()),
            "--device",
            "cpu",
            *options,
        ]
        self.process = subprocess.Popen(command, pass_fds=[theirs.fileno()])
        theirs.close()
        self.pipe = Connection(ours.detach())
        self.ready = self.receive(protocol.Ready)

    def send(self, message: protocol.ToChild) -> None:
        self.pipe.send(message)

    def receive(self, kind: type[Message], *, until: Callable[[Message], bool] = lambda _: True) -> Message:
        """Return the next message of this kind, passing over progress and the like; fail on an unexpected end."""
        while True:
            assert self.pipe.poll(PATIENCE), "the child is silent"
            message = self.pipe.recv()
            if isinstance(message, kind) and until(message):
                return message
            assert not isinstance(message, protocol.Failed), message

    def close(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait(PATIENCE)
        self.pipe.close()
