"""Teaches cross-attention where each thing stands: its cells look at its own noun, among others.

Left to the denoising loss alone, the U-Net reads what is drawn from the first noun and from the padding, which the
causal text tower fills with the first thing; the second of two things then gets a colour of its own but no class.
Source: Xiao et al., "FastComposer" (2305.10431, localising cross-attention with the subjects' masks); here by the log
likelihood, and for the noun of every thing. A sampler needs none of this: only training pays for it.

Dimensions: B samples, N token positions, H heads, P = S * S positions of a feature map, d width of a head
"""

from __future__ import annotations

from typing import Final

import torch
import torch.nn.functional as F
from diffusers import UNet2DConditionModel
from diffusers.models.attention_processor import Attention
from torch import Tensor
from transformers import CLIPTokenizer

from workers.engine.storybook.identity import KINDS
from workers.engine.storybook.networks import word_tokens

_ENOUGH: Final = 0.25
"""The share of attention a noun is owed. With all of it nothing would be left for what the thing wears."""

_FLOOR: Final = 1e-2
"""Added to what a cell pays to its noun, so that cells that cannot know it yet do not outvote the rest."""


class Nouns:
    """Finds the noun of each thing of a caption; what a thing wears is part of that thing."""

    def __init__(self, tokenizer: CLIPTokenizer):
        self._kinds = torch.tensor(word_tokens(tokenizer, KINDS))
        self._wearing = torch.tensor(word_tokens(tokenizer, ["wearing"]))

    def number(self, ids: Tensor) -> Tensor:
        """Return, for token ids (B, N), 1 at the first thing's noun, 2 at the second's and so on, else 0: (B, N)."""
        kinds = torch.isin(ids, self._kinds.to(ids.device))
        wearing = torch.isin(ids, self._wearing.to(ids.device))
        # Each "wearing" uses up one noun: what is left of the nouns so far numbers the things.
        numbers = (kinds.cumsum(1) - wearing.cumsum(1)) * kinds  # (B, N)
        before = F.pad(numbers.cummax(1).values, (1, -1))
        return numbers * (numbers > before)


class RecordedAttention:
    """Plain cross-attention that keeps its weights (B, H, P, N) for the loss."""

    def __init__(self) -> None:
        self.weights: Tensor | None = None

    def __call__(
        self,
        attn: Attention,
        hidden_states: Tensor,
        encoder_hidden_states: Tensor,
        attention_mask: Tensor | None = None,  # noqa: ARG002 - diffusers passes it; padding is attended to
    ) -> Tensor:
        """Attend from positions (B, P, C) to token encodings (B, N, D)."""
        query, key, value = (
            projected.unflatten(-1, (attn.heads, -1)).transpose(1, 2)  # (B, H, P or N, d)
            for projected in (
                attn.to_q(hidden_states),
                attn.to_k(encoder_hidden_states),
                attn.to_v(encoder_hidden_states),
            )
        )
        self.weights = torch.softmax(query @ key.mT * attn.scale, dim=-1)
        mixed: Tensor = attn.to_out[0]((self.weights @ value).transpose(1, 2).flatten(2))
        return mixed


class Localisation:
    """Records every cross-attention layer of a U-Net and scores where it looks."""

    def __init__(self, unet: UNet2DConditionModel, tokenizer: CLIPTokenizer):
        processors = unet.attn_processors
        self._layers = {name: RecordedAttention() for name in processors if ".attn2." in name}
        unet.set_attn_processor({**processors, **self._layers})
        self._nouns = Nouns(tokenizer)

    def loss(self, ids: Tensor, masks: Tensor) -> Tensor:
        """Return the mean negative log share of attention that things pay to their own nouns, after a forward pass.

        `ids` (B, N) are the captions, `masks` (B, 1, S, S) how much of each cell the things cover. Things stand in a
        row in the order of the words, so that bands of equal width tell their cells apart.
        """
        numbers = self._nouns.number(ids)  # (B, N)
        losses = []
        for layer in self._layers.values():
            assert layer.weights is not None, "the U-Net has not run yet"
            weights = layer.weights.float().mean(1)  # (B, P, N)
            side = int(weights.shape[1] ** 0.5)
            own = (_bands(numbers, side) == numbers[:, None]) & (numbers[:, None] > 0)  # (B, P, N)
            covered = F.adaptive_avg_pool2d(masks, side).flatten(1) * own.any(-1)  # (B, P)
            share = (weights * own).sum(-1)  # (B, P)
            losses.append(-(covered * (share.clamp(max=_ENOUGH) + _FLOOR).log()).sum() / covered.sum().clamp(min=1))
        return torch.stack(losses).mean()


def _bands(numbers: Tensor, side: int) -> Tensor:
    """Return which thing stands in each cell of a `side` x `side` map: (B, P, 1)."""
    count = numbers.amax(1, keepdim=True)  # (B, 1)
    columns = torch.arange(side, device=numbers.device).repeat(side)  # (P,)
    bands: Tensor = (columns * count) // side + 1
    return bands[..., None]
