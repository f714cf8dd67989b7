"""The whole system on this machine: servers, migrations and parts, as ``lockstepd up`` runs them."""

from __future__ import annotations

import http.client
import json
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import timedelta
from typing import Protocol

from core.config import Settings, child_environment
from core.db import migrations
from core.embedded.errors import EmbeddedError
from core.embedded.folder import DataFolder, write_private
from core.embedded.placement import find_home
from core.embedded.ports import LOOPBACK, find_free, is_free, is_held
from core.embedded.postgres import Postgres
from core.embedded.process import Process
from core.embedded.seaweed import SeaweedFS
from core.embedded.supervisor import Supervisor, Unit
from core.embedded.valkey import Valkey
from core.storage.s3 import ObjectStore

_LOOK_EVERY = timedelta(seconds=0.1)
_READY_WITHIN = timedelta(seconds=120)


class Server(Unit, Protocol):
    """An embedded server: a unit that says how the parts reach it."""

    def settings(self) -> Mapping[str, object]:
        """The settings with which the parts find this server, once it was started."""


@dataclass(frozen=True)
class Part:
    """One part of Lockstep itself, run as ``python -m module``; it gets ``patience`` to stop by itself."""

    name: str
    module: str
    patience: timedelta


PARTS = (
    Part("api", "api", timedelta(seconds=10)),
    Part("maintain", "workers.maintain", timedelta(seconds=10)),
    # It leaves a training or distillation at a step, with a checkpoint: seconds, or minutes where a step takes some.
    Part("worker", "workers.run", timedelta(seconds=330)),
)


class Stack:
    """A stack that runs; ``settings`` are complete: those that were given, and where the servers are."""

    def __init__(self, settings: Settings, api: Process, supervisor: Supervisor, stop: threading.Event) -> None:
        self.settings = settings
        self._api = api
        self._supervisor = supervisor
        self._stop = stop

    def wait_until_ready(self) -> bool:
        """Watch the parts until the API is ready; False when a stop was asked for before that.

        Raises:
            EmbeddedError: when a part keeps failing, or the API is not ready in time.
        """
        deadline = time.monotonic() + _READY_WITHIN.total_seconds()
        while not self._is_ready():
            if self._stop.is_set():
                return False
            if time.monotonic() > deadline:
                raise EmbeddedError(f"the API is not ready after {_READY_WITHIN.total_seconds():.0f} s")
            self._look()
            self._supervisor.refuse_crash_loops()
        return True

    def watch(self, *, until: Callable[[], bool] = lambda: False) -> None:
        """Keep the parts running until a stop is asked for, or ``until`` says so."""
        while not self._stop.is_set() and not until():
            self._look()

    def _is_ready(self) -> bool:
        # Two stacks that start together may choose the same port, and one's API must not pass for the other's.
        pid, port = self._api.pid, self.settings.port
        return pid is not None and is_held(port, by=pid) and _is_ready(self.settings)

    def _look(self) -> None:
        self._supervisor.watch_once()
        self._stop.wait(_LOOK_EVERY.total_seconds())


class _PartUnit:
    def __init__(self, part: Part, settings: Settings, folder: DataFolder) -> None:
        self.process = Process(
            name=part.name,
            command=(sys.executable, "-m", part.module),
            log=folder.log(part.name),
            environment=child_environment(settings),
            patience=part.patience,
        )

    def start(self) -> None:
        self.process.start()


@contextmanager
def run_stack(settings: Settings, *, report: Callable[[str], None], parts: Sequence[Part] = PARTS) -> Iterator[Stack]:
    """Start every server that the settings do not name and every part; stop them all at the end.

    Ctrl-C, SIGTERM and SIGHUP end ``Stack.watch``. Call this from the main thread.

    Raises:
        AlreadyRunning: when another supervisor holds the data folder.
        EmbeddedError: when a server cannot be started.
    """
    folder = DataFolder.open(settings.data_dir)
    with folder.lock(), _stop_signals() as stop:
        supervisor = Supervisor(report=report, clock=time.monotonic)
        try:
            complete = _start_servers(settings, folder, supervisor)
            migrations.upgrade(complete.owner_dsn)
            ObjectStore.from_settings(complete).ensure_bucket()
            write_running(complete, folder)
            units = {part.name: _PartUnit(part, complete, folder) for part in parts}
            supervisor.start(*units.values())
            yield Stack(complete, units["api"].process, supervisor, stop)
        finally:
            supervisor.stop()
            folder.running_file.unlink(missing_ok=True)


def write_running(settings: Settings, folder: DataFolder) -> None:
    """Leave the settings of the stack that runs for the operator's commands."""
    write_private(folder.running_file, json.dumps(settings.environment(), indent=2))


def running_settings(given: Settings) -> Settings:
    """The settings of the stack that runs in ``given``'s data folder, beneath those that were given; else ``given``."""
    try:
        variables: dict[str, str] = json.loads(DataFolder(given.data_dir).running_file.read_text())
    except FileNotFoundError:
        return given
    running = {name.removeprefix("LOCKSTEP_").lower(): value for name, value in variables.items()}
    return Settings.model_validate(running | given.model_dump(exclude_unset=True))


def _start_servers(settings: Settings, folder: DataFolder, supervisor: Supervisor) -> Settings:
    """Start the servers that no ``LOCKSTEP_...`` setting replaces; the settings with what they add."""
    found: dict[str, object] = {"data_dir": folder.path, "port": _choose_port(settings)}
    for replaced_by, make in _SERVERS.items():
        if replaced_by not in settings.model_fields_set:
            server = make(folder)
            supervisor.start(server)
            found |= server.settings()
    if "url_secret" not in settings.model_fields_set:
        found["url_secret"] = folder.credentials().url_secret
    return Settings.model_validate(settings.model_dump(exclude_unset=True) | found)


def make_postgres(folder: DataFolder) -> Postgres:
    """The data folder's own Postgres."""
    return Postgres(find_home(folder.path), log=folder.log("postgres"))


def make_valkey(folder: DataFolder) -> Valkey:
    """The data folder's own broker."""
    password = folder.credentials().broker_password
    return Valkey(folder.path / "valkey", password=password, log=folder.log("valkey"))


def make_seaweedfs(folder: DataFolder) -> SeaweedFS:
    """The data folder's own object store."""
    credentials = folder.credentials()
    return SeaweedFS(
        folder.path / "seaweedfs",
        access_key=credentials.s3_access_key,
        secret_key=credentials.s3_secret_key,
        log=folder.log("seaweedfs"),
    )


# The setting that names a server of the user's own: how to make ours.
_SERVERS: Mapping[str, Callable[[DataFolder], Server]] = {
    "database_url": make_postgres,
    "broker_url": make_valkey,
    "s3_endpoint": make_seaweedfs,
}


def _choose_port(settings: Settings) -> int:
    """The API's port: the one that was asked for, or the usual one, or any that is free."""
    if is_free(settings.port, host=settings.host):
        return settings.port
    if "port" in settings.model_fields_set:
        raise EmbeddedError(f"port {settings.port} is taken: set LOCKSTEP_PORT to a free one")
    return find_free()[0]


def _is_ready(settings: Settings) -> bool:
    wildcard = settings.host in {"0.0.0.0", "::", ""}  # noqa: S104 - compared, not bound
    connection = http.client.HTTPConnection(LOOPBACK if wildcard else settings.host, settings.port, timeout=2)
    try:
        connection.request("GET", "/readyz")
        return connection.getresponse().status == http.HTTPStatus.OK
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()


@contextmanager
def _stop_signals() -> Iterator[threading.Event]:
    """An event that Ctrl-C, SIGTERM and SIGHUP set; a second Ctrl-C interrupts whatever is being done."""
    stop = threading.Event()

    def ask(*_: object) -> None:
        stop.set()
        signal.signal(signal.SIGINT, signal.default_int_handler)

    before = {number: signal.signal(number, ask) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            with suppress(TypeError):  # None: a handler that Python did not install, and cannot put back
                signal.signal(number, handler)
