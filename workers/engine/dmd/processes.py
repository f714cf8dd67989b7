"""Several processes that work on one distillation, each on its share of every batch.

All of them hold everything and draw the same random numbers from equal generators; each keeps its slice. As every loss
is a mean over the batch and all slices are equally long, the average of the processes' gradients is the gradient of the
whole batch: any number of processes takes the same steps, up to rounding, and a checkpoint of one number goes on under
another. Averages are the same to the bit in every process, so that their parameters never drift apart.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, Protocol

import torch
from torch import Tensor

from workers.engine.settings import require


class Processes(Protocol):
    """The processes of one distillation, as each of them sees it."""

    @property
    def rank(self) -> int:
        """Which of them this is, from 0; the first writes files and speaks for all."""

    @property
    def count(self) -> int:
        """How many they are."""

    def mean(self, tensor: Tensor, /) -> Tensor:
        """Return the average of every process's tensor, all of one shape, where this one's is."""


class Alone:
    """One process, which has every batch to itself."""

    rank = 0
    count = 1

    def mean(self, tensor: Tensor, /) -> Tensor:
        """Return what came."""
        return tensor


ALONE: Final = Alone()


def require_equal_shares(batch_size: int, processes: int) -> None:
    """Raise SettingsInvalid unless a batch can be divided among so many."""
    require(batch_size % processes == 0, f"batch_size {batch_size} must be divisible by the {processes} processes")


class Share:
    """What one process keeps of batches of ``batch_size`` samples; raises SettingsInvalid unless all keep as many."""

    def __init__(self, batch_size: int, processes: Processes) -> None:
        count, rank = processes.count, processes.rank
        require_equal_shares(batch_size, count)
        self.size = batch_size // count
        self._processes = count
        self._batch_size = batch_size
        self._kept = slice(rank * self.size, (rank + 1) * self.size)

    def whole(self, kept: int) -> int:
        """Return how many samples are drawn for all processes where this one keeps so many."""
        return kept * self._processes

    def of(self, drawn: Tensor) -> Tensor:
        """Return this process's part of one or more whole batches (k B, ...), batch by batch: (k B / R, ...)."""
        if self._processes == 1:
            return drawn
        return drawn.view(-1, self._batch_size, *drawn.shape[1:])[:, self._kept].flatten(0, 1)


def average(processes: Processes, tensors: Sequence[Tensor]) -> list[Tensor]:
    """Average tensors of one dtype over all processes in a single exchange."""
    if processes.count == 1:
        return list(tensors)
    flat = processes.mean(torch.cat([tensor.flatten() for tensor in tensors]))
    parts = torch.split(flat, [tensor.numel() for tensor in tensors])
    return [part.view_as(tensor) for part, tensor in zip(parts, tensors, strict=True)]


def anyone(processes: Processes, *, says_so: bool) -> bool:
    """Tell every process whether any of them says so."""
    return bool(processes.mean(torch.tensor(float(says_so))) > 0)
