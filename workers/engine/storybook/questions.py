"""Questions about a caption, and a network that answers them from encodings.

Which class, colour and pattern has each thing, what does it wear, where is it, by day or night, in what style, and is
the picture rough? One attention query per question reads the encodings, so each answer has to lie in some token of its
own: where the U-Net's cross-attention will look for it.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from typing import Final

import torch
from torch import Tensor, nn
from torch.nn import functional

from workers.engine.storybook.identity import ACCESSORIES, COLOUR_NAMES, KINDS, PATTERNS
from workers.engine.storybook.world import SCENES, STYLES

_THINGS: Final = 3
_SAID_PATTERNS: Final = PATTERNS[1:]
"""Captions never call a thing plain."""

_THING_ANSWERS: Final = (KINDS, COLOUR_NAMES, _SAID_PATTERNS)
_WORN_ANSWERS: Final = (ACCESSORIES, COLOUR_NAMES, _SAID_PATTERNS)
_PLACE_WORDS: Final = {"background": "plain", "snowy": "snow", "moon": "space"}
"""Words that stand for a place without being its name."""

ROUGH: Final = ("blurry", "noisy")
"""Said of a picture that is so; those of the world are not."""

_VALUES: Final = (*(_THING_ANSWERS + _WORN_ANSWERS) * _THINGS, SCENES, COLOUR_NAMES, ("night",), STYLES, ROUGH)
ANSWERS: Final = tuple(1 + len(values) for values in _VALUES)
"""How many answers each question has; answer 0 is silence."""

_SHARPNESS: Final = 4.0


def stated(text: str) -> list[int]:
    """Return the answers that a caption gives, as numbers below `ANSWERS`."""
    phrases = re.split(r" next to | and ", text)
    answers = [answer for phrase in phrases for answer in _thing(phrase)]
    answers += [0] * (_THINGS - len(phrases)) * len(_THING_ANSWERS + _WORN_ANSWERS)
    words = text.split()
    background = words[words.index("background") - 1] if "background" in words else ""
    return [
        *answers,
        _first([_PLACE_WORDS.get(word, word) for word in words], SCENES),
        _first([background], COLOUR_NAMES),
        _first(words, ("night",)),
        _first(words, STYLES),
        _first(words, ROUGH),
    ]


def _thing(phrase: str) -> list[int]:
    thing, _, worn = phrase.partition(" wearing ")
    return [*_described(thing, _THING_ANSWERS), *_described(worn, _WORN_ANSWERS)]


def _described(phrase: str, answers: Sequence[Sequence[str]]) -> list[int]:
    """Read a phrase up to its noun, so that a background's colour is not taken for the thing's."""
    words = phrase.split()
    end = next((k for k, word in enumerate(words) if word in KINDS), -1) + 1
    return [_first(words[:end], values) for values in answers]


def _first(words: Sequence[str], values: Sequence[str]) -> int:
    return next((values.index(word) + 1 for word in words if word in values), 0)


class Questions(nn.Module):
    """One attention query per question over encodings of width D, and a linear answer to each."""

    possible: Tensor

    def __init__(self, width: int):
        super().__init__()
        self.queries = nn.Parameter(0.2 * torch.randn(len(ANSWERS), width))
        self.keys, self.values = nn.Linear(width, width), nn.Linear(width, width)
        self.answers = nn.Parameter(torch.randn(len(ANSWERS), width, max(ANSWERS)) / width**0.5)
        self.register_buffer("possible", torch.arange(max(ANSWERS)) < torch.tensor(ANSWERS)[:, None])  # (Q, A)

    def forward(self, encodings: Tensor) -> Tensor:
        """(B, N, D) -> scores (B, Q, A) of every answer, minus infinity where a question has fewer."""
        width = encodings.shape[2]
        weights = torch.einsum("qd,bnd->bqn", self.queries, self.keys(encodings)) * _SHARPNESS / width**0.5
        read = weights.softmax(-1) @ self.values(encodings)  # (B, Q, D)
        scores = torch.einsum("bqd,qda->bqa", read, self.answers)
        return scores.float().masked_fill(~self.possible, -math.inf)

    def loss(self, encodings: Tensor, truth: Tensor) -> Tensor:
        """Sum the cross-entropies of all questions: encodings (B, N, D), truth (B, Q) -> scalar."""
        scores = self(encodings)
        return functional.cross_entropy(scores.flatten(0, 1), truth.flatten(), reduction="sum") / len(truth)

    @torch.no_grad()
    def accuracy(self, encodings: Tensor, truth: Tensor) -> float:
        """Return the share of right answers: encodings (B, N, D), truth (B, Q)."""
        return float((self(encodings).argmax(2) == truth).float().mean())
