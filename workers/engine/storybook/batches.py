"""Mixed training batches out of the rendered cache."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor
from transformers import CLIPTokenizer

from workers.engine.storybook.data import Shard, load_set
from workers.engine.storybook.networks import token_ids


@dataclass(frozen=True)
class Batch:
    """Pixels (B, 3, 64, 64) in [-1, 1], masks (B, 1, 16, 16) in [0, 1] and token ids (B, N)."""

    pixels: Tensor
    masks: Tensor
    ids: Tensor


class Batches:
    """Draws pictures of both sets with one of their captions, or none at the rate of the caption dropout."""

    def __init__(self, folder: Path, tokenizer: CLIPTokenizer, *, size: int, caption_dropout: float):
        self._sets = {name: _Set(load_set(folder, name), tokenizer) for name in ("studio", "outdoors")}
        self._silence = token_ids(tokenizer, [""])[0]  # (N,)
        self._size = size
        self._caption_dropout = caption_dropout

    def draw(self, studio_share: float, generator: torch.Generator) -> Batch:
        """Draw one batch; `studio_share` of its pictures come from the studio on average."""
        rolls = torch.rand(self._size, 5, generator=generator).tolist()
        rows = [self._sets["studio" if roll[0] < studio_share else "outdoors"].pick(roll[1:4]) for roll in rolls]
        silent = torch.tensor([roll[4] < self._caption_dropout for roll in rolls])
        ids = torch.stack([row[2] for row in rows]).long()
        return Batch(
            pixels=torch.stack([row[0] for row in rows]).permute(0, 3, 1, 2).float() / 127.5 - 1,
            masks=torch.stack([row[1] for row in rows])[:, None].float() / 255,
            ids=torch.where(silent[:, None], self._silence[None], ids),
        )


class _Set:
    """The shards of one set with their captions tokenised: 16-bit ids (pictures, captions each, N) per shard."""

    def __init__(self, shards: list[Shard], tokenizer: CLIPTokenizer):
        self._shards = shards
        self._ids = [_tokenise(tokenizer, shard.captions) for shard in shards]

    def pick(self, rolls: Sequence[float]) -> tuple[Tensor, Tensor, Tensor]:
        """Return the picture, mask and caption that three numbers in [0, 1) point at."""
        number = int(rolls[0] * len(self._shards))
        shard, ids = self._shards[number], self._ids[number]
        k = int(rolls[1] * len(shard.pixels))
        pixels, mask = torch.from_numpy(shard.pixels[k].copy()), torch.from_numpy(shard.masks[k].copy())
        return pixels, mask, ids[k, int(rolls[2] * ids.shape[1])]


def _tokenise(tokenizer: CLIPTokenizer, captions: list[list[str]]) -> Tensor:
    ids = token_ids(tokenizer, [text for texts in captions for text in texts])
    return ids.view(len(captions), -1, ids.shape[1]).to(torch.int16)
