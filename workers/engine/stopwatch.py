"""How long the parts of a piece of work take."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

import torch


class Stopwatch:
    """Seconds by the clock, by the name of the part, added up."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}

    @contextmanager
    def time(self, part: str, device: torch.device | None = None) -> Iterator[None]:
        """Time a block; of work that a GPU does on its own, to its end on that ``device``."""
        started = time.perf_counter()
        try:
            yield
        finally:
            if device is not None and device.type == "cuda":
                torch.cuda.synchronize(device)
            self.seconds[part] = self.seconds.get(part, 0.0) + time.perf_counter() - started
