"""The data folder (``.lockstep/``): what lies where in it, its credentials, and the lock of its one supervisor."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import secrets
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from core.embedded.errors import AlreadyRunning, EmbeddedError


@dataclass(frozen=True)
class Credentials:
    """What the servers on this machine ask for; made once for each data folder."""

    broker_password: str
    s3_access_key: str
    s3_secret_key: str
    url_secret: str

    @classmethod
    def generate(cls) -> Credentials:
        """New random credentials, in characters that need no quoting in URLs and configuration files."""
        return cls(
            broker_password=secrets.token_hex(16),
            s3_access_key=f"LOCKSTEP{secrets.token_hex(6).upper()}",
            s3_secret_key=secrets.token_hex(20),
            url_secret=secrets.token_hex(32),
        )


@dataclass(frozen=True)
class DataFolder:
    """One deployment's folder on this machine, owned by whoever runs it."""

    path: Path

    @classmethod
    def open(cls, path: Path) -> DataFolder:
        """The folder at ``path``, made if it is not there.

        Raises:
            EmbeddedError: when it belongs to another user.
        """
        path = path.absolute()
        path.mkdir(parents=True, exist_ok=True)
        if path.stat().st_uid != os.geteuid():
            raise EmbeddedError(f"{path} belongs to another user: run as that user, or set LOCKSTEP_DATA_DIR")
        # Root's Postgres runs as nobody and walks through; all that is secret has a mode of its own.
        path.chmod(0o711 if os.geteuid() == 0 else 0o700)
        return cls(path)

    def log(self, name: str) -> Path:
        """The log file of one server or part."""
        return self.path / "logs" / f"{name}.log"

    @property
    def running_file(self) -> Path:
        """The settings of the stack that runs here; there while it runs."""
        return self.path / "running.json"

    def credentials(self) -> Credentials:
        """This folder's credentials, generated at the first call; those that an older release left out are added."""
        file = self.path / "credentials.json"
        known: dict[str, str] = json.loads(file.read_text()) if file.exists() else {}
        complete = Credentials(**vars(Credentials.generate()) | known)
        if vars(complete) != known:
            write_private(file, json.dumps(vars(complete), indent=2))
        return complete

    @contextlib.contextmanager
    def lock(self) -> Iterator[None]:
        """Hold the folder for one supervisor; the kernel lets go of it when the holder dies, however it dies.

        Raises:
            AlreadyRunning: when another process holds it.
        """
        file = self.path / "lock"
        with file.open("a+") as handle:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                handle.seek(0)
                raise AlreadyRunning(
                    f"already running in {self.path} (process {handle.read().strip() or 'unknown'})"
                ) from None
            handle.truncate(0)
            handle.write(f"{os.getpid()}\n")
            handle.flush()
            yield


def write_private(file: Path, text: str) -> None:
    """Write a file that only its owner may read, whole or not at all."""
    unfinished = file.with_name(f"{file.name}.unfinished")
    unfinished.unlink(missing_ok=True)
    unfinished.touch(mode=0o600)
    unfinished.write_text(text)
    unfinished.replace(file)
