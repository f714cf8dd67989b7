"""The whole system, as `lockstepd up` runs it, for a benchmark to be its customer."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from core.config import Settings
from core.embedded.ports import find_free
from core.embedded.stack import run_stack
from tests.stack import server_folder


@contextmanager
def running(*models: Path, **settings: Any) -> Iterator[Settings]:
    """Run it with these models on the CPU until left: its settings, once it is ready."""
    with server_folder() as folder:
        given = Settings(
            data_dir=folder / "data",
            port=find_free()[0],  # the usual one may be that of a system that starts at the same time
            models=tuple(map(str, models)),
            device="cpu",
            **settings,
        )
        with run_stack(given, report=lambda _line: None) as stack:
            if not stack.wait_until_ready():
                raise RuntimeError("stopped before the service was ready")
            yield stack.settings
