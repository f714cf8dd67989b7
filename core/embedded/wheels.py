"""Where the servers' programs lie in the wheels that bring them."""

from __future__ import annotations

from importlib import metadata
from pathlib import Path

from core.embedded.errors import EmbeddedError


def find_program(distribution: str, name: str) -> Path:
    """The program ``name`` that the installed ``distribution`` brought.

    Raises:
        EmbeddedError: when the distribution is not installed or has no such program for this platform.
    """
    try:
        files = metadata.files(distribution) or []
    except metadata.PackageNotFoundError:
        raise EmbeddedError(
            f"{distribution} is not installed: install lockstep-server[embedded], or point the LOCKSTEP_... "
            "variables at servers of your own"
        ) from None
    for file in files:
        if file.name == name:
            return Path(str(file.locate())).resolve()
    raise EmbeddedError(f"{distribution} brought no program named {name} for this platform")
