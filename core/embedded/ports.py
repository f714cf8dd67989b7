"""Ports on the loopback interface that nobody listens on.

They lie below the range from which the kernel takes ports for outgoing connections (32768 upwards on Linux), so
that no connection can take a chosen port before its server does.
"""

from __future__ import annotations

import contextlib
import json
import random
import socket
from collections.abc import Sequence
from pathlib import Path

import psutil

_CANDIDATES = range(20000, 32000)
LOOPBACK = "127.0.0.1"


def is_free(port: int, *, host: str = LOOPBACK) -> bool:
    """Whether a server could listen on ``port`` now."""
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as probe:
        # As servers do: a port whose last connections are still winding down (TIME_WAIT) is free.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError:
            return False
    return True


def is_held(port: int, *, by: int) -> bool:
    """Whether the process ``by`` itself listens on ``port``: what answers there may be another's server."""
    with contextlib.suppress(psutil.Error):
        held = psutil.Process(by).net_connections("tcp")
        return any(one.status == psutil.CONN_LISTEN and one.laddr.port == port for one in held)
    return False


def find_free(count: int = 1) -> list[int]:
    """``count`` different free ports, drawn at random so that two stacks that start together rarely meet."""
    found: list[int] = []
    for port in random.sample(_CANDIDATES, len(_CANDIDATES)):
        if len(found) == count:
            break
        if is_free(port):
            found.append(port)
    return found


def remembered(file: Path, names: Sequence[str]) -> dict[str, int]:
    """One free port for each name: those of the last time, kept in ``file``, unless one of them is taken now."""
    with contextlib.suppress(FileNotFoundError, ValueError):
        known: dict[str, int] = json.loads(file.read_text())
        if set(known) == set(names) and all(is_free(port) for port in known.values()):
            return known
    chosen = dict(zip(names, find_free(len(names)), strict=True))
    file.write_text(json.dumps(chosen))
    return chosen
