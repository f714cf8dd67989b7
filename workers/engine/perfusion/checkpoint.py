"""A training half done, as one safetensors file: enough to go on bit for bit."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from workers.engine.errors import CheckpointMismatch


@dataclass(frozen=True)
class Checkpoint:
    """Learned vectors, AdamW's moments, the generator's state and the step they belong to."""

    identity: str  # of the training; nothing else may resume from it
    step: int
    loss: float
    concept: Mapping[str, Tensor]
    optimizer: Mapping[str, Mapping[str, Tensor]]  # parameter name -> step, exp_avg, exp_avg_sq
    generator: Tensor  # uint8

    def save(self, path: Path) -> None:
        """Write the file whole or not at all."""
        tensors = {f"concept/{name}": tensor for name, tensor in self.concept.items()}
        for parameter, state in self.optimizer.items():
            tensors |= {f"optimizer/{parameter}/{name}": tensor for name, tensor in state.items()}
        tensors["generator"] = self.generator
        on_cpu = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
        facts = {"identity": self.identity, "step": str(self.step), "loss": self.loss.hex()}
        partial = path.with_suffix(".partial")
        with partial.open("wb") as file:
            file.write(save(on_cpu, facts))
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)

    @classmethod
    def load(cls, path: Path) -> Checkpoint:
        """Read a file written by `save`; raises CheckpointMismatch for anything else."""
        try:
            with safe_open(path, framework="pt") as file:
                facts = dict(file.metadata() or {})
                tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a mapping
            optimizer: dict[str, dict[str, Tensor]] = {}
            for name, tensor in tensors.items():
                if name.startswith("optimizer/"):
                    _, parameter, key = name.split("/")
                    optimizer.setdefault(parameter, {})[key] = tensor
            return cls(
                identity=facts["identity"],
                step=int(facts["step"]),
                loss=float.fromhex(facts["loss"]),
                concept={name[8:]: tensor for name, tensor in tensors.items() if name.startswith("concept/")},
                optimizer=optimizer,
                generator=tensors["generator"].to(torch.uint8),
            )
        except (OSError, SafetensorError, KeyError, ValueError) as error:
            raise CheckpointMismatch(f"{path.name} is not a training checkpoint: {error}") from error

    def require(self, identity: str) -> None:
        """Raise CheckpointMismatch unless this checkpoint belongs to the training ``identity``."""
        if self.identity != identity:
            raise CheckpointMismatch("the checkpoint belongs to a training with other pictures, settings or base model")
