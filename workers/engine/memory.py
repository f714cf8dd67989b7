"""What a device's memory holds: of models, without counting what they share, and when it is full."""

from __future__ import annotations

import gc
from collections.abc import Iterable, Iterator

import torch
from torch import Tensor

from workers.engine.base_model import BaseModel


def is_out_of_memory(error: BaseException) -> bool:
    """Say whether this is a device's, or the machine's, way to say so."""
    # The CPU's allocator has no error of its own.
    return isinstance(error, torch.OutOfMemoryError | MemoryError) or "can't allocate memory" in str(error)


def release(device: torch.device) -> None:
    """Give back what nothing holds any more."""
    gc.collect()
    if device.type == "cuda":
        torch.cuda.empty_cache()


def bytes_of(models: Iterable[BaseModel]) -> int:
    """Return how many bytes of weights models have together; students share most of their teacher's."""
    storages = {tensor.untyped_storage().data_ptr(): tensor for model in models for tensor in _tensors(model)}
    return sum(tensor.untyped_storage().nbytes() for tensor in storages.values())


def _tensors(model: BaseModel) -> Iterator[Tensor]:
    autoencoder = model.autoencoder
    towers = (tower.model for tower in model.text.towers)
    networks = (*towers, model.denoiser.unet, autoencoder.network, autoencoder.decoder)
    for network in networks:
        yield from network.parameters()
        yield from network.buffers()
    yield from (model.projections.keys, model.projections.values)
    if model.covariance is not None:
        yield model.covariance.inverse
