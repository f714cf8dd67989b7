"""A process's own clock, set wrong while it runs; everything else, its monotonic clock included, is as it was."""

from __future__ import annotations

import shutil
import struct
import subprocess
from collections.abc import Mapping
from pathlib import Path

_SOURCE = Path(__file__).with_name("clock.c")


class Clock:
    """The clock of one process and its children."""

    def __init__(self, library: Path, file: Path) -> None:
        self._file = file
        self.shift(0)
        self.environment: Mapping[str, str] = {"LD_PRELOAD": str(library), "CHAOS_CLOCK": str(file)}

    def shift(self, seconds: int) -> None:
        """Set it wrong by so many seconds."""
        with self._file.open("r+b" if self._file.exists() else "wb") as file:
            file.write(struct.pack("l", seconds))


def build_library(folder: Path) -> Path | None:
    """The library that sets clocks wrong; None where there is no C compiler."""
    compiler = shutil.which("cc")
    if compiler is None:
        return None
    library = folder / "clock.so"
    subprocess.run([compiler, "-shared", "-fPIC", "-O2", "-o", str(library), str(_SOURCE)], check=True)
    return library
