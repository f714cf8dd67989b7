"""One side of a distillation: parameters, their AdamW and their descent, with everything that resuming needs."""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from workers.engine.dmd.processes import Processes, average
from workers.engine.errors import TrainingDiverged


class Learner:
    """Descends losses in its own parameters; whatever else a loss depends on gets no gradient."""

    def __init__(
        self,
        parameters: Mapping[str, nn.Parameter],
        processes: Processes,
        *,
        lr: float,
        weight_decay: float,
        clip: float,
    ) -> None:
        self.parameters = dict(parameters)
        self._processes = processes
        self._lr = lr
        self._clip = clip
        self._optimizer = torch.optim.AdamW(
            self.parameters.values(), lr=lr, betas=(0.9, 0.999), weight_decay=weight_decay, fused=True
        )

    def set_rate(self, share: float) -> None:
        """Learn at a share of the full learning rate from now on."""
        for group in self._optimizer.param_groups:
            group["lr"] = self._lr * share

    def descend(self, loss: Tensor) -> float:
        """Take one clipped step down the mean of all processes' losses, or raise TrainingDiverged in all of them.

        Returns the norm of the gradient before clipping.
        """
        own = list(self.parameters.values())
        mean, *gradients = average(self._processes, [loss.detach(), *torch.autograd.grad(loss, own)])
        for parameter, gradient in zip(own, gradients, strict=True):
            parameter.grad = gradient
        norm = float(nn.utils.clip_grad_norm_(own, self._clip))
        if not math.isfinite(norm) or not math.isfinite(float(mean)):
            raise TrainingDiverged(f"a loss is {float(mean)}, the norm of its gradient {norm}")
        self._optimizer.step()
        self._optimizer.zero_grad()
        return norm

    def state(self) -> dict[str, Tensor]:
        """Return parameters and moments by name; without a step there are no moments yet."""
        tensors: dict[str, Tensor] = {f"value/{name}": parameter for name, parameter in self.parameters.items()}
        for name, parameter in self.parameters.items():
            for key, moment in self._optimizer.state[parameter].items():
                tensors[f"{key}/{name}"] = moment
        return tensors

    def restore(self, tensors: Mapping[str, Tensor]) -> None:
        """Take up what `state` returned; raises KeyError where a parameter is missing."""
        with torch.no_grad():
            for name, parameter in self.parameters.items():
                parameter.copy_(tensors[f"value/{name}"])
                if f"step/{name}" in tensors:
                    moments = {key: tensors[f"{key}/{name}"] for key in ("step", "exp_avg", "exp_avg_sq")}
                    self._optimizer.state[parameter] = {
                        key: moment.to(parameter.device, copy=True) for key, moment in moments.items()
                    }
