"""Which release of Lockstep this is."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version


def release() -> str:
    """The installed version; ``0`` in a checkout that is not installed."""
    try:
        return version("lockstep-server")
    except PackageNotFoundError:
        return "0"
