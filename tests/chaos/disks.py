"""Small disks: file systems of their own in an image file, which can be filled without filling the machine's."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Disk:
    """A mounted file system."""

    path: Path

    @property
    def ballast(self) -> Path:
        """The file that fills it."""
        return self.path / "ballast"

    def fill(self) -> None:
        """Leave no room."""
        with self.ballast.open("wb") as file:
            while (free := self._free()) > 0:
                os.posix_fallocate(file.fileno(), file.seek(0, os.SEEK_END), free)
                file.seek(0, os.SEEK_END)

    def empty(self) -> None:
        """Give the room back."""
        self.ballast.unlink(missing_ok=True)

    def _free(self) -> int:
        """Bytes left, in whole blocks; what the file system needs for itself is not asked for."""
        found = os.statvfs(self.path)
        return max(0, found.f_bavail - 64) * found.f_frsize


def can_mount() -> bool:
    """Whether this process may mount an image; ordinary users may not."""
    return os.geteuid() == 0 and shutil.which("mkfs.ext4") is not None and Path("/dev/loop-control").exists()


@contextmanager
def small_disk(path: Path, image: Path, *, megabytes: int) -> Iterator[Disk]:
    """A disk of this size at ``path``: an ext4 image on the machine's own disk, so that fsync means what it says."""
    path.mkdir()
    with image.open("wb") as file:
        file.truncate(megabytes * 1024**2)
    subprocess.run(["mkfs.ext4", "-q", "-F", "-m", "0", str(image)], check=True, capture_output=True)
    subprocess.run(["mount", "-o", "loop", str(image), str(path)], check=True)
    try:
        yield Disk(path)
    finally:
        subprocess.run(["umount", "--lazy", str(path)], check=True)
        image.unlink()
