"""The processes in which a decoder of this process decodes."""

from __future__ import annotations

from contextlib import suppress

import psutil


def decoding_processes() -> list[psutil.Process]:
    """Children of the server that forks them; those of Postgres and of whatever else was started here are others."""
    found: list[psutil.Process] = []
    for child in psutil.Process().children():
        with suppress(psutil.NoSuchProcess):
            if any("multiprocessing.forkserver" in part for part in child.cmdline()):
                found += child.children()
    return found


def held_bytes(process: psutil.Process) -> int:
    """Resident memory; none of one that is gone."""
    with suppress(psutil.NoSuchProcess):
        return int(process.memory_info().rss)
    return 0
