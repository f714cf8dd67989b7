"""What an SDXL-shaped U-Net is told beside keys and values: the pooled prompt, and of which size the picture is.

Source: Podell et al. 2023 (SDXL, arXiv 2307.01952), section 2.2: a picture's original size, the corner it was cropped
at and the size that is drawn, as six numbers. Pictures here are never cropped, and their size is the one drawn.
Dimensions:  B samples, P width of the pooled embedding
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class AddedConditions:
    """The pooled embedding (B, P) of each sample's prompt and its time ids (B, 6), in float32."""

    pooled: Tensor
    time_ids: Tensor

    @classmethod
    def of(cls, pooled: Tensor, width: int, height: int) -> AddedConditions:
        """Describe samples of one size, in pixels."""
        ids = pooled.new_tensor([height, width, 0, 0, height, width])
        return cls(pooled, ids.expand(len(pooled), -1))

    def select(self, samples: Tensor) -> AddedConditions:
        """Return the rows ``samples`` (B',), which may repeat."""
        return AddedConditions(self.pooled[samples], self.time_ids[samples])

    def to(self, dtype: torch.dtype) -> AddedConditions:
        """Return the same in the precision of the U-Net, which makes its own of the time ids."""
        return AddedConditions(self.pooled.to(dtype), self.time_ids)

    def as_arguments(self) -> dict[str, Tensor]:
        """Return them by diffusers' names."""
        return {"text_embeds": self.pooled, "time_ids": self.time_ids}

    @staticmethod
    def concatenate(parts: Sequence[AddedConditions | None]) -> AddedConditions | None:
        """Join batches of one model, in order; None where it is told nothing beside."""
        told = [part for part in parts if part is not None]
        if not told:
            return None
        return AddedConditions(torch.cat([part.pooled for part in told]), torch.cat([part.time_ids for part in told]))
