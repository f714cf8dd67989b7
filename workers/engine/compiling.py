"""A model compiled for drawing: less time for every batch, for minutes at the first one of each size.

The networks are compiled for each shape of their inputs. Concepts are no part of that: what a U-Net is told is data of
one shape, whoever asked for whatever. So a model's compiled network serves all tenants, and a batch may mix concepts.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any, Final

import torch
from torch._dynamo import config as dynamo
from torch._inductor import config as inductor

from workers.engine.base_model import BaseModel
from workers.engine.denoiser import Denoiser

INDUCTOR: Final = "inductor"
"""The backend of `torch.compile` that makes code; others only show what would be compiled."""
_MOST_SHAPES: Final = 64  # batch sizes times picture sizes; beyond, dynamo would go on uncompiled in silence


def compiled(base: BaseModel, backend: str) -> BaseModel:
    """Return the model with networks that compile at their first batch of each size; the weights are the same ones.

    On a GPU batches run as CUDA graphs. What is compiled holds on to its weights: `forget` it with the model.
    """
    dynamo.recompile_limit = max(dynamo.recompile_limit, _MOST_SHAPES)
    how: dict[str, Any] = {"backend": backend, "dynamic": False}
    freezes = base.device.type == "cpu" and backend == INDUCTOR
    if base.device.type == "cuda":
        how["mode"] = "reduce-overhead"

    def made(network: Callable[..., Any]) -> Callable[..., Any]:
        return _frozen(torch.compile(network, **how)) if freezes else torch.compile(network, **how)

    return replace(
        base,
        denoiser=Denoiser(base.denoiser.unet, base.denoiser.schedule, made(base.denoiser.unet)),
        autoencoder=base.autoencoder.with_compiled(made(base.autoencoder.decoder.decode)),
    )


def forget() -> None:
    """Let go of everything compiled, and of the weights it holds; what is still in use compiles again."""
    torch.compiler.reset()


def _frozen(network: Callable[..., Any]) -> Callable[..., Any]:
    """Have weights packed for the processor as constants: a quarter of a batch's time.

    Only in these calls: code compiled elsewhere in this process, to learn, is not to take its weights for constants.
    """

    def call(*arguments: Any, **named: Any) -> Any:
        with inductor.patch(freezing=True):
            return network(*arguments, **named)

    return call
