"""Waiting for what another process does, and looking whether it is still there."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path


def eventually(is_so: Callable[[], bool], *, within: float = 15) -> bool:
    """Whether ``is_so`` becomes true within so many seconds."""
    deadline = time.monotonic() + within
    while not (so := is_so()) and time.monotonic() < deadline:
        time.sleep(0.02)
    return so


def until(is_so: Callable[[], object], *, seconds: float = 60) -> None:
    """Return once ``is_so`` becomes true; fail when it does not within so many seconds."""
    assert eventually(lambda: bool(is_so()), within=seconds), f"not so within {seconds:.0f} s"


def is_alive(pid: int) -> bool:
    """Whether a process runs; one that ended and that nobody has waited for does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False
