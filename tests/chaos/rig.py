"""The servers and parts of a system as processes that can be killed, stopped, cut off, filled and misled.

The main thread starts processes (the kernel ties them to it) and starts them again when they end, as `lockstepd up`
does; faults come from another thread.
"""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

import psutil
from sqlalchemy.engine import URL, make_url

from core.config import Settings
from core.embedded.folder import DataFolder
from core.embedded.placement import find_home
from core.embedded.postgres import OWNER, Postgres
from core.embedded.process import Process
from core.embedded.seaweed import SeaweedFS
from core.embedded.stack import make_seaweedfs, make_valkey
from core.embedded.supervisor import Supervisor
from core.embedded.valkey import Valkey
from tests.chaos.clock import Clock, build_library
from tests.chaos.disks import Disk, can_mount, small_disk
from tests.chaos.plan import Kind
from tests.chaos.proxy import Network, Proxy, tcp, unix

_POSTGRES_MB, _STORE_MB = 1200, 3000
_LOOK_SECONDS = 0.1


@dataclass(frozen=True)
class Part:
    """A program of the system: its name in logs, what is run, and whether its clock can be set wrong."""

    name: str
    arguments: tuple[str, ...]
    environment: Mapping[str, str]
    has_clock: bool = False


class _Unit:
    def __init__(self, process: Process) -> None:
        self.process = process

    def start(self) -> None:
        self.process.start()


class Rig:
    """Servers on small disks behind proxies, and the parts that use them."""

    def __init__(self, folder: DataFolder, network: Network, disks: Mapping[str, Disk]) -> None:
        self.folder = folder
        self.network = network
        self.disks = disks
        self.postgres: Postgres = Postgres(find_home(folder.path), log=folder.log("postgres"))
        self.valkey: Valkey = make_valkey(folder)
        self.seaweed: SeaweedFS = make_seaweedfs(folder)
        self.proxies: dict[str, Proxy] = {}
        self.clocks: dict[str, Clock] = {}
        self._clock_library = build_library(folder.path)
        self._units: dict[str, _Unit] = {}
        self._supervisor = Supervisor(report=lambda _line: None, clock=time.monotonic)

    def start_servers(self) -> None:
        """Start the three servers and the proxies before them."""
        self._supervisor.start(self.postgres)
        self._supervisor.start(self.valkey)
        self._supervisor.start(self.seaweed)
        broker, store = make_url(self.valkey.url), make_url(self.seaweed.endpoint)
        assert broker.port is not None
        assert store.port is not None
        self.proxies = {
            "postgres": self.network.place(unix(self.postgres.home.sockets / ".s.PGSQL.5432")),
            "broker": self.network.place(tcp(broker.port)),
            "store": self.network.place(tcp(store.port)),
        }

    def database(self, role: str = OWNER) -> str:
        """Postgres for a role, through its proxy."""
        port = self.proxies["postgres"].port
        return URL.create("postgresql+psycopg", role, None, "127.0.0.1", port, "lockstep").render_as_string()

    @property
    def broker(self) -> str:
        """The broker, through its proxy."""
        url = make_url(self.valkey.url).set(port=self.proxies["broker"].port)
        return url.render_as_string(hide_password=False)

    @property
    def store(self) -> Mapping[str, object]:
        """The S3 server, through its proxy."""
        return {**self.seaweed.settings(), "s3_endpoint": f"http://127.0.0.1:{self.proxies['store'].port}"}

    @property
    def direct(self) -> Settings:
        """The servers themselves, for whoever looks on."""
        return Settings.model_validate(
            {**self.postgres.settings(), **self.valkey.settings(), **self.seaweed.settings()}
        )

    def start_parts(self, parts: Sequence[Part]) -> None:
        """Start the system's own programs as a group that is stopped together."""
        for part in parts:
            environment = {**os.environ, **part.environment}
            if part.has_clock and self._clock_library is not None:
                self.clocks[part.name] = Clock(self._clock_library, self.folder.path / f"{part.name}.clock")
                environment |= self.clocks[part.name].environment
            self._units[part.name] = _Unit(
                Process(
                    name=part.name,
                    command=(sys.executable, *part.arguments),
                    log=self.folder.log(part.name),
                    environment=environment,
                    patience=timedelta(seconds=20),
                )
            )
        self._supervisor.start(*self._units.values())

    def names(self, prefix: str) -> list[str]:
        """The parts whose names begin so."""
        return [name for name in self._units if name.startswith(prefix)]

    def pid(self, name: str) -> int | None:
        """The process of a part, while it runs."""
        process = self._units[name].process
        return None if process.exit_code() is not None else process.pid

    def children(self, name: str) -> list[psutil.Process]:
        """What a part has started."""
        pid = self.pid(name)
        try:
            return [] if pid is None else psutil.Process(pid).children(recursive=True)
        except psutil.NoSuchProcess:
            return []

    def watch(self, until: Callable[[], bool]) -> None:
        """Start again what ends; from the main thread."""
        while not until():
            self._supervisor.watch_once()
            time.sleep(_LOOK_SECONDS)

    def stop(self) -> None:
        """End everything, the parts first."""
        self._supervisor.stop()

    def possible(self) -> tuple[Kind, ...]:
        """The kinds of fault that can be made here."""
        missing = set()
        if not self.disks:
            missing |= {Kind.FILL_POSTGRES, Kind.FILL_STORE}
        if not self.clocks:
            missing.add(Kind.SHIFT_CLOCK)
        for prefix, kinds in _NEEDED.items():
            if not self.names(prefix):
                missing |= kinds
        return tuple(kind for kind in Kind if kind not in missing)


_NEEDED = {"api": {Kind.KILL_API}, "maintain": {Kind.KILL_MAINTAIN, Kind.STOP_MAINTAIN}}


@contextmanager
def rig(*, keep: Path | None = None) -> Iterator[Rig]:
    """A rig in a temporary folder, on small disks where they can be mounted; logs are copied to ``keep``."""
    path = Path(tempfile.mkdtemp(prefix="lockstep-chaos-"))
    path.chmod(0o711)
    with ExitStack() as leaving:
        leaving.callback(shutil.rmtree, path, ignore_errors=True)
        folder = DataFolder.open(path / "data")
        if keep is not None:
            leaving.callback(shutil.copytree, folder.path / "logs", keep, dirs_exist_ok=True)
        disks = {}
        if can_mount():
            disks = {
                name: leaving.enter_context(small_disk(folder.path / place, path / f"{name}.image", megabytes=size))
                for name, place, size in (("postgres", "postgres", _POSTGRES_MB), ("store", "seaweedfs", _STORE_MB))
            }
        network = Network()
        leaving.callback(network.close)
        made = Rig(folder, network, disks)
        leaving.callback(made.stop)
        made.start_servers()
        yield made
