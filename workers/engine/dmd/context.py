"""What the networks of a distillation are told about samples.

Dimensions:  B samples, N token positions, D text encoder width
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from workers.engine.added_conditions import AddedConditions


@dataclass(frozen=True)
class Context:
    """Text ``encodings`` (B, N, D) and, for SDXL-shaped U-Nets, what is ``added`` to them."""

    encodings: Tensor
    added: AddedConditions | None = None

    def expand(self, count: int) -> Context:
        """Return the context of one sample for ``count`` of them."""
        index = torch.zeros(count, dtype=torch.long, device=self.encodings.device)
        return Context(self.encodings[index], None if self.added is None else self.added.select(index))

    def to(self, dtype: torch.dtype) -> Context:
        """Return the same in the precision of a U-Net."""
        return Context(self.encodings.to(dtype), None if self.added is None else self.added.to(dtype))

    def as_arguments(self) -> dict[str, object]:
        """Return it by the names that diffusers' U-Nets have for it."""
        added = None if self.added is None else self.added.as_arguments()
        return {"encoder_hidden_states": self.encodings, "added_cond_kwargs": added}

    @staticmethod
    def concatenate(parts: Sequence[Context]) -> Context:
        """Join batches, in order."""
        encodings = torch.cat([part.encodings for part in parts])
        return Context(encodings, AddedConditions.concatenate([part.added for part in parts]))
