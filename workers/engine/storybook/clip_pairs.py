"""Renders with their captions, and the batches of them that a CLIP pair is trained on.

Rough twins: some pictures of a batch come once more, blurred or noised, with captions that say so, since nothing else
tells a pair that grades pictures that rough and fine ones of one content differ. Towers this small take it up last:
after 500 steps they only begin to, and read content through blur that an eye would call strong.
"""

from __future__ import annotations

from dataclasses import dataclass
from random import Random
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional
from transformers import CLIPTokenizer

from workers.engine.storybook.captions import caption
from workers.engine.storybook.identity import Split, split_rng
from workers.engine.storybook.judges import to_tensor
from workers.engine.storybook.questions import ROUGH
from workers.engine.storybook.render import render_picture
from workers.engine.storybook.sampling import sample_composition
from workers.engine.storybook.text_training import mixtures, tokenise

_FINE_CAPTIONS: Final = 3
"""How many captions a picture has: one that is full, and two that leave things out."""

_BLURRED_SIDES: Final = (16, 20, 24, 32)
_NOISE: Final = (0.1, 0.4)
"""Of pixels in [-1, 1]."""

_SHIFT: Final = 3


@dataclass(frozen=True)
class Pairs:
    """Pictures (M, 64, 64, 3) and the captions of each, the full one first."""

    pixels: NDArray[np.uint8]
    captions: list[list[str]]


@dataclass(frozen=True)
class ClipBatch:
    """Pixels (B, 3, 64, 64) in [-1, 1], token ids (B, N), and the answers (B, Q) of its caption and of a full one."""

    pixels: Tensor
    ids: Tensor
    said: Tensor
    shown: Tensor


def render_pairs(split: Split, count: int, *, first: int, like: Split | None = None) -> Pairs:
    """Render pictures of a split, one in four in the studio, with captions; `like` says what it may see, if less."""
    studio, outdoors = mixtures(like or split)
    pictures, captions = [], []
    for k in range(count):
        rng = split_rng(split, first + k)
        c = sample_composition(rng, studio if k % 4 == 0 else outdoors)
        pictures.append(render_picture(c.scene, c.instances, c.layout))
        full = caption(rng, c.scene, c.instances, full=True)
        captions.append([full, *(caption(rng, c.scene, c.instances) for _ in range(_FINE_CAPTIONS - 1))])
    return Pairs(np.stack(pictures), captions)


class ClipBatches:
    """Draws batches of `size`, of which `twins` are rough."""

    def __init__(self, pairs: Pairs, tokenizer: CLIPTokenizer, *, size: int, twins: int, seed: int):
        self._pixels = pairs.pixels
        captions = [text for texts in pairs.captions for text in (*texts, *(f"{word} {texts[0]}" for word in ROUGH))]
        ids, truth = tokenise(tokenizer, captions, Random(seed))
        self._ids, self._truth = (t.view(len(pairs.captions), -1, t.shape[1]) for t in (ids, truth))  # (M, C, ...)
        self._size, self._twins = size, twins
        self._rng = torch.Generator().manual_seed(seed)

    def draw(self) -> ClipBatch:
        """Draw pictures with one of their captions each, then the twins of the first of them."""
        rows = torch.randperm(len(self._ids), generator=self._rng)[: self._size - self._twins]
        pixels = _shifted(to_tensor(self._pixels[rows.numpy()]), self._rng)
        captions, full = torch.randint(_FINE_CAPTIONS, (len(rows),), generator=self._rng), torch.zeros_like(rows)
        if self._twins:
            half = self._twins // 2
            blurred, noised = _blurred(pixels[:half], self._rng), _noised(pixels[half : self._twins], self._rng)
            pixels = torch.cat([pixels, blurred, noised])
            rows = torch.cat([rows, rows[: self._twins]])
            rough = _FINE_CAPTIONS + (torch.arange(self._twins) >= half).long()  # first the blurry ones' captions
            captions, full = torch.cat([captions, rough]), torch.cat([full, rough])
        return ClipBatch(
            pixels=pixels,
            ids=self._ids[rows, captions],
            said=self._truth[rows, captions],
            shown=self._truth[rows, full],
        )


def _shifted(pixels: Tensor, rng: torch.Generator) -> Tensor:
    """Move a whole batch by a few pixels, its edges repeated."""
    top, left = torch.randint(2 * _SHIFT + 1, (2,), generator=rng).tolist()
    side = pixels.shape[-1]
    padded = functional.pad(pixels, (_SHIFT,) * 4, mode="replicate")
    return padded[..., top : top + side, left : left + side]


def _blurred(pixels: Tensor, rng: torch.Generator) -> Tensor:
    side = _BLURRED_SIDES[int(torch.randint(len(_BLURRED_SIDES), (), generator=rng))]
    small = functional.interpolate(pixels, size=side, mode="bilinear", antialias=True)
    return functional.interpolate(small, size=pixels.shape[-1], mode="bilinear")


def _noised(pixels: Tensor, rng: torch.Generator) -> Tensor:
    least, most = _NOISE
    strength = least + (most - least) * torch.rand(len(pixels), 1, 1, 1, generator=rng)
    return (pixels + strength * torch.randn(pixels.shape, generator=rng)).clamp(-1, 1)
