"""A classifier head on the fake score's bottleneck: were these noised latents real, or the student's?

Source: DMD2 (arXiv 2405.14867): the head reads features of the fake score, not of the teacher, at a random
noise level, and its gradient reaches the part of the fake score above it.
Dimensions:  B samples, C' channels and H' x W' cells of the bottleneck
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

_CELLS = 4  # a side this short is taken in at once


class Discriminator(nn.Module):
    """Halves the features until one 4 x 4 window sees all of them, then gives one logit."""

    def __init__(self, channels: int, height: int, width: int) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        while min(height, width) > _CELLS:
            layers += _stage(channels, kernel=(4, 4), stride=2, padding=1)
            height, width = height // 2, width // 2
        layers += _stage(channels, kernel=(height, width), stride=1, padding=0)
        self.layers = nn.Sequential(*layers, nn.Conv2d(channels, 1, 1))

    @classmethod
    def reading(cls, features: Tensor, *, seed: int) -> Discriminator:
        """Return a head for features shaped like these, with the weights that ``seed`` gives it anywhere."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            return cls(*features.shape[1:]).to(features.device)

    def forward(self, features: Tensor) -> Tensor:
        """Return logits (B,), high for real."""
        logits: Tensor = self.layers(features).flatten()
        return logits


def _stage(channels: int, *, kernel: tuple[int, int], stride: int, padding: int) -> list[nn.Module]:
    # Four channels a group at least: over a single cell, a group of one would be normalised to nothing.
    groups = math.gcd(32, max(1, channels // 4))
    return [nn.Conv2d(channels, channels, kernel, stride, padding), nn.GroupNorm(groups, channels), nn.SiLU()]
