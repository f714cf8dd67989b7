"""Tensors and a few facts as one safetensors file that is there whole or not at all."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor


def write_tensors(path: Path, tensors: Mapping[str, Tensor], facts: Mapping[str, str]) -> None:
    """Write beside ``path``, reach the disk, then take its name: a crash leaves the old file or none."""
    on_cpu = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    partial = path.with_suffix(".partial")
    save_file(on_cpu, partial, dict(facts))
    with partial.open("rb") as file:
        os.fsync(file.fileno())
    partial.replace(path)


def read_tensors(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Return tensors and facts; raises OSError or SafetensorError for a file that is not whole."""
    with safe_open(path, framework="pt") as file:
        facts = dict(file.metadata() or {})
        return {name: file.get_tensor(name) for name in file.keys()}, facts  # noqa: SIM118 - not a mapping
