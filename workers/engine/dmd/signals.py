"""What a distillation says about itself: averages over the steps since it last said something.

Losses alone do not tell a good run from a bad one: a fake score's loss may rise while pictures get better. What does is
whether the samples' mean holds still (DMD2, appendix C: at too few critic updates it swings).
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from workers.engine.dmd.processes import ALONE, Processes

_CHANNELS = "channels"


class SignalWindow:
    """Sums since the last report, in double precision; the same in all ``processes``."""

    def __init__(self, processes: Processes = ALONE) -> None:
        self._processes = processes
        self._sums: dict[str, Tensor] = {}  # name -> (2,): sum and count
        self._channels: Tensor | None = None  # (3, C): count, sum and sum of squares of each channel's mean

    def add(self, name: str, value: float) -> None:
        """Note one value, which every process knows."""
        noted = self._sums.setdefault(name, torch.zeros(2, dtype=torch.float64))
        noted += torch.tensor([value, 1.0], dtype=torch.float64)

    def add_mean(self, name: str, value: Tensor, *, root: bool = False) -> None:
        """Note the mean of a value that each process has from its own samples; ``root`` is drawn of the mean."""
        mean = self._processes.mean(value.detach())
        self.add(name, float(mean.sqrt() if root else mean))

    def add_samples(self, x: Tensor) -> None:
        """Note a batch of the student's samples (B, C, H, W)."""
        flat = x.detach().transpose(0, 1).flatten(1).double().cpu()  # (C, B H W)
        means, squares = self._processes.mean(torch.stack([flat.mean(1), flat.square().mean(1)]))  # (C,) each
        self.add("sample_spread", float((squares - means.square()).clamp_min(0).sqrt().mean()))
        if self._channels is None:
            self._channels = torch.zeros((3, len(means)), dtype=torch.float64)
        self._channels += torch.stack([torch.ones_like(means), means, means.square()])

    def report(self) -> dict[str, float]:
        """Return the averages and start anew.

        ``sample_mean`` is the mean over all elements; ``mean_swing`` the standard deviation, over the steps, of each
        channel's mean, as a root mean square over channels, so that opposite swings do not cancel.
        """
        report = {name: float(noted[0] / noted[1]) for name, noted in self._sums.items()}
        if self._channels is not None:
            count, total, squares = self._channels
            variance = (squares / count - (total / count).square()).clamp_min(0)  # (C,)
            report |= {"sample_mean": float((total / count).mean()), "mean_swing": float(variance.mean().sqrt())}
        self._sums, self._channels = {}, None
        return report

    def state(self) -> dict[str, Tensor]:
        """Return the sums by name."""
        return self._sums | ({} if self._channels is None else {_CHANNELS: self._channels})

    def restore(self, tensors: Mapping[str, Tensor]) -> None:
        """Take up what `state` returned."""
        self._sums = {name: tensor.clone() for name, tensor in tensors.items() if name != _CHANNELS}
        self._channels = tensors[_CHANNELS].clone() if _CHANNELS in tensors else None
