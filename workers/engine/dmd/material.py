"""What a distillation learns from: prompts, the teacher's pairs, and real latents where there is a discriminator.

Dimensions:  B samples, P pairs, R real pictures, C x H x W latents, N token positions
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from workers.engine.added_conditions import AddedConditions
from workers.engine.dmd.context import Context
from workers.engine.perfusion.tokens import tokenize
from workers.engine.text import TextEncoder


class Contexts(Protocol):
    """A numbered collection of what networks can be told."""

    def __len__(self) -> int:
        """Count them."""

    def take(self, indices: Tensor) -> Context:
        """Return the contexts at ``indices`` (B,), which may repeat."""


class PromptContexts:
    """What prompts say of pictures of one size, encoded when it is asked for: tokens are small, encodings are not."""

    def __init__(self, text: TextEncoder, prompts: Sequence[str], *, size: int) -> None:
        """Tokenise every prompt; raises PromptTooLong and, as there are no concepts here, PlaceholderUnknown.

        ``size`` is the pictures' side in pixels.
        """
        self._text, self._size = text, size
        self._rows = torch.tensor([tokenize(text, prompt, {}, ()).ids for prompt in prompts])  # (count, N)

    def __len__(self) -> int:
        return len(self._rows)

    def take(self, indices: Tensor) -> Context:
        """Encode the prompts at ``indices`` (B,)."""
        with torch.no_grad():
            reading = self._text.read(self._rows[indices].tolist())
        pooled, side = reading.pooled, self._size
        return Context(reading.encodings, None if pooled is None else AddedConditions.of(pooled, side, side))


@dataclass(frozen=True)
class Paired:
    """Latents (P, C, H, W), each with its context; of the teacher's pairs also the ``noise`` that they came from."""

    latents: Tensor
    contexts: Contexts
    noise: Tensor | None = None


@dataclass(frozen=True)
class Material:
    """All of it, for samples of one ``shape`` (C, H, W)."""

    shape: tuple[int, int, int]
    contexts: Contexts
    blank: Context  # of one sample: what the teacher is told when it is told nothing
    pairs: Paired | None = None
    real: Paired | None = None
