"""What a device's memory holds: of models, without counting what they share, and when it is full."""

from __future__ import annotations

import gc
import os
from collections.abc import Iterable, Iterator
from pathlib import Path

import torch
from torch import Tensor

from workers.engine.base_model import BaseModel

_FULL = (
    "can't allocate memory",  # the CPU's allocator, which has no error of its own
    "CUDA error: out of memory",
    "CUBLAS_STATUS_ALLOC_FAILED",
    "CUDNN_STATUS_ALLOC_FAILED",
)
_CONTAINER_LIMITS = tuple(Path("/sys/fs/cgroup") / name for name in ("memory.max", "memory/memory.limit_in_bytes"))


def is_out_of_memory(error: BaseException) -> bool:
    """Say whether this is a device's, or the machine's, way to say so."""
    seen: BaseException | None = error
    while seen is not None:  # a compiler or a graph's capture wraps what it met
        if isinstance(seen, torch.OutOfMemoryError | MemoryError) or any(word in str(seen) for word in _FULL):
            return True
        seen = seen.__cause__
    return False


def of_machine() -> int:
    """Return how many bytes of memory this process may have: the machine's, or its container's."""
    machine = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    limits = [path.read_text().strip() for path in _CONTAINER_LIMITS if path.exists()]
    return min([machine, *(int(limit) for limit in limits if limit.isdecimal())])


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
