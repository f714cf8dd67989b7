"""The U-Net's optimiser: Muon for what multiplies, AdamW for the rest.

Muon turns a gradient matrix into the nearest orthogonal one before it steps, so that every direction of a layer moves
alike, not only the strongest. Sources: Jordan, "Muon: An optimizer for hidden layers in neural networks" (2024); Liu et
al., "Muon is Scalable for LLM Training" (2502.16982: the scale that lets it take AdamW's learning rate).
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final

import torch
from torch import Tensor, nn

_EDGES: Final = ("conv_in.", "conv_out.", "time_embedding.")
"""Layers to and from the data, which its authors leave to AdamW."""


class UnetOptimiser:
    """Steps a U-Net's parameters; ``muon`` pays where bf16 products are fast, and AdamW does it all elsewhere."""

    def __init__(self, named: Iterable[tuple[str, nn.Parameter]], *, lr: float, weight_decay: float, muon: bool):
        hidden: list[nn.Parameter] = []
        kernels: list[nn.Parameter] = []
        vectors: list[nn.Parameter] = []
        for name, parameter in named:
            inner = muon and parameter.ndim > 1 and not name.startswith(_EDGES)
            (hidden if inner else kernels if parameter.ndim > 1 else vectors).append(parameter)
        self._hidden = hidden
        # Torch's Muon takes matrices only: a convolution's kernel is one of output channels by everything else.
        self._matrices = [nn.Parameter(_matrix(parameter.detach())) for parameter in hidden]
        groups: list[dict[str, Any]] = [
            {"params": kernels, "weight_decay": weight_decay},
            {"params": vectors, "weight_decay": 0.0},
        ]
        self._parts: list[torch.optim.Optimizer] = [torch.optim.AdamW(groups, lr, betas=(0.9, 0.99), fused=True)]
        if muon:
            self._parts.append(
                torch.optim.Muon(self._matrices, lr, weight_decay=weight_decay, adjust_lr_fn="match_rms_adamw")
            )

    def set_rate(self, lr: float) -> None:
        """Set the learning rate of all parameters."""
        for part in self._parts:
            for group in part.param_groups:
                group["lr"] = lr

    def rates(self) -> list[float]:
        """Return the learning rate of every group of parameters."""
        return [group["lr"] for part in self._parts for group in part.param_groups]

    def zero_grad(self) -> None:
        """Forget all gradients."""
        for part in self._parts:
            part.zero_grad()
        for parameter in self._hidden:
            parameter.grad = None

    def step(self) -> None:
        """Move every parameter along its gradient."""
        for parameter, matrix in zip(self._hidden, self._matrices, strict=True):
            # Taken anew at every step, as averaging over processes gives parameters other storage.
            matrix.data = _matrix(parameter.data)
            matrix.grad = None if parameter.grad is None else parameter.grad.flatten(1)
        for part in self._parts:
            part.step()

    def state_dict(self) -> dict[str, Any]:
        """Return what `load_state_dict` goes on from."""
        return {"parts": [part.state_dict() for part in self._parts]}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from an earlier `state_dict`; raises ValueError if it is of other parts."""
        for part, saved in zip(self._parts, state["parts"], strict=True):
            part.load_state_dict(saved)


def _matrix(tensor: Tensor) -> Tensor:
    return tensor.view(len(tensor), -1)  # a view, never a copy: what moves the matrix moves the parameter
