"""Lets a trained U-Net go on under another text tower.

Cross-attention reads encodings through two matrices only. With e the old tower's and f the new tower's encoding of the
same token of the same caption, the linear map A that brings f A nearest to e turns the old K = W_K e into
(W_K A^T) f, in closed form: the U-Net hears nearly what it heard before, and training goes on from there.

| symbol | code | shape |
|---|---|---|
| e | before | (M, D_old), M tokens of the captions that both tokenizers cut into equally many |
| f | after | (M, D_new) |
| A | bridge | (D_new, D_old) |
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from diffusers import UNet2DConditionModel
from torch import Tensor, nn

from workers.engine.text import TextEncoder

_RIDGE = 1e-4


def refit_cross_attention(
    unet: UNet2DConditionModel, before: TextEncoder, after: TextEncoder, captions: Sequence[str]
) -> float:
    """Rewrite every cross-attention's K and V for the tower `after`; return how much of `before` it explains (R^2).

    Raises ValueError if no caption is cut into equally many tokens by both.
    """
    paired = [text for text in captions if len(before.tokens(text)) == len(after.tokens(text))]
    if not paired:
        raise ValueError("the two tokenizers agree on none of the captions")
    old, new, weights = _encodings(before, paired), _encodings(after, paired), _weights(after, paired)
    gram = new.T @ (weights * new)
    ridge = _RIDGE * gram.diagonal().mean() * torch.eye(len(gram), dtype=gram.dtype)
    bridge = torch.linalg.solve(gram + ridge, new.T @ (weights * old))  # (D_new, D_old)
    for projection in _projections(unet):
        projection.weight.data = (projection.weight.double() @ bridge.T).float()  # (inner, D_new)
    mean = (weights * old).sum(0) / weights.sum()
    left = (weights * (new @ bridge - old).square()).sum() / (weights * (old - mean).square()).sum()
    return float(1 - left)


@torch.no_grad()
def _encodings(encoder: TextEncoder, captions: Sequence[str]) -> Tensor:
    """Encode captions, padding included since U-Nets attend to it: (M, D) in float64."""
    parts = [
        encoder.encode([encoder.row(encoder.tokens(text)) for text in captions[start : start + 256]])
        for start in range(0, len(captions), 256)
    ]
    return torch.cat(parts).flatten(0, 1).double()


def _weights(encoder: TextEncoder, captions: Sequence[str]) -> Tensor:
    """Return (M, 1): each token counts 1 and a caption's padding 1 in all, or words would be lost in the crowd."""
    rows = []
    for text in captions:
        words = len(encoder.tokens(text)) + 2
        padding = encoder.length - words
        rows.append([1.0] * words + [1 / max(1, padding)] * padding)
    return torch.tensor(rows, dtype=torch.float64).flatten()[:, None]


def _projections(unet: UNet2DConditionModel) -> Iterator[nn.Linear]:
    for name, module in unet.named_modules():
        if name.endswith("attn2"):
            yield module.to_k
            yield module.to_v
