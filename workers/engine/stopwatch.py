"""When the parts of a piece of work were done, and how long they took."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

import torch


class Stopwatch:
    """The parts in the order in which they ended: name, Unix time of the beginning, seconds."""

    def __init__(self) -> None:
        self.parts: list[tuple[str, float, float]] = []

    @property
    def seconds(self) -> dict[str, float]:
        """Seconds by the name of the part, added up."""
        sums: dict[str, float] = {}
        for name, _, seconds in self.parts:
            sums[name] = sums.get(name, 0.0) + seconds
        return sums

    @contextmanager
    def time(self, part: str, device: torch.device | None = None) -> Iterator[None]:
        """Time a block; of work that a GPU does on its own, to its end on that ``device``."""
        began_at, started = time.time(), time.perf_counter()
        try:
            yield
        finally:
            if device is not None and device.type == "cuda":
                torch.cuda.synchronize(device)
            self.parts.append((part, began_at, time.perf_counter() - started))
