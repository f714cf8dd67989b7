"""A training half done, as one safetensors file: enough to go on bit for bit."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError
from torch import Tensor

from workers.engine.errors import CheckpointMismatch
from workers.engine.perfusion.standing import Standing
from workers.engine.tensor_file import read_tensors, write_tensors


@dataclass(frozen=True)
class Checkpoint:
    """Learned vectors, AdamW's moments, the generator's state, the step they belong to, and the best concept so far."""

    identity: str  # of the training; nothing else may resume from it
    step: int
    loss: float
    concept: Mapping[str, Tensor]
    optimizer: Mapping[str, Mapping[str, Tensor]]  # parameter name -> step, exp_avg, exp_avg_sq
    generator: Tensor  # uint8
    standing: Standing | None = None  # None before the first validation

    def save(self, path: Path) -> None:
        """Write the file whole or not at all."""
        tensors = {f"concept/{name}": tensor for name, tensor in self.concept.items()}
        for parameter, state in self.optimizer.items():
            tensors |= {f"optimizer/{parameter}/{name}": tensor for name, tensor in state.items()}
        tensors["generator"] = self.generator
        facts = {"identity": self.identity, "step": str(self.step), "loss": self.loss.hex()}
        if self.standing is not None:
            tensors |= {f"best/{name}": tensor for name, tensor in self.standing.best.concept.items()}
            facts["standing"] = self.standing.dump()
        write_tensors(path, tensors, facts)

    @classmethod
    def load(cls, path: Path) -> Checkpoint:
        """Read a file written by `save`; raises CheckpointMismatch for anything else."""
        try:
            tensors, facts = read_tensors(path)
            optimizer: dict[str, dict[str, Tensor]] = {}
            for name, tensor in tensors.items():
                if name.startswith("optimizer/"):
                    _, parameter, key = name.split("/")
                    optimizer.setdefault(parameter, {})[key] = tensor
            return cls(
                identity=facts["identity"],
                step=int(facts["step"]),
                loss=float.fromhex(facts["loss"]),
                concept=_under("concept/", tensors),
                optimizer=optimizer,
                generator=tensors["generator"].to(torch.uint8),
                standing=Standing.parse(facts["standing"], _under("best/", tensors)) if "standing" in facts else None,
            )
        except (OSError, SafetensorError, KeyError, ValueError, TypeError) as error:
            raise CheckpointMismatch(f"{path.name} is not a training checkpoint: {error}") from error

    def require(self, identity: str) -> None:
        """Raise CheckpointMismatch unless this checkpoint belongs to the training ``identity``."""
        if self.identity != identity:
            raise CheckpointMismatch("the checkpoint belongs to a training with other pictures, settings or base model")


def _under(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}
