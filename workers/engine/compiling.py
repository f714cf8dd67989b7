"""A model compiled for drawing: less time for every batch, for minutes at the first one of each size.

The networks are compiled for each shape of their inputs. Concepts are no part of that: what a U-Net is told is data of
one shape, whoever asked for whatever. So one compiled network serves every tenant, and a batch may mix any concepts.
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

    On a GPU batches run as CUDA graphs, with images laid out channels last, as tensor cores read them.
    """
    dynamo.recompile_limit = max(dynamo.recompile_limit, _MOST_SHAPES)
    unet, decoder = base.denoiser.unet, base.autoencoder.decoder
    how: dict[str, Any] = {"backend": backend, "dynamic": False}
    if base.device.type == "cuda":
        how["mode"] = "reduce-overhead"
        for part in (unet, decoder):
            part.to(memory_format=torch.channels_last)
    return replace(
        base,
        denoiser=Denoiser(unet, base.denoiser.schedule, _frozen(torch.compile(unet, **how))),
        autoencoder=base.autoencoder.with_compiled(_frozen(torch.compile(decoder.decode, **how))),
    )


def _frozen(network: Callable[..., Any]) -> Callable[..., Any]:
    """Have weights packed for the processor as constants: a quarter of a batch's time.

    Only in these calls: code compiled elsewhere in this process, to learn, is not to take its weights for constants.
    """

    def call(*arguments: Any, **named: Any) -> Any:
        with inductor.patch(freezing=True):
            return network(*arguments, **named)

    return call
