"""One contract over diffusers' autoencoders: pixels in [-1, 1] to scaled latents and back.

Dimensions:  B pictures, 3 x height x width pixels, C x H x W latents, height = factor * H
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from diffusers import AutoencoderKL, AutoencoderTiny
from torch import Tensor


class Autoencoder:
    """An `AutoencoderKL` or an `AutoencoderTiny`, frozen."""

    def __init__(
        self, network: AutoencoderKL | AutoencoderTiny, compiled: Callable[[Tensor], Any] | None = None
    ) -> None:
        """``compiled`` is called in the place of the network's ``decode``, which it was made of."""
        self.network = network
        self._decode = network.decode if compiled is None else compiled

    @property
    def factor(self) -> int:
        """How many pixels one latent cell spans, along each side."""
        levels = len(self.network.config.block_out_channels)
        return 1 << (levels - 1)

    @torch.no_grad()
    def encode(self, pixels: Tensor) -> Tensor:
        """Return latents (B, C, H, W) in float32; of a KL encoder the mean, so that encoding is deterministic."""
        encoded = self.network.encode(pixels.to(self.network.dtype))
        latents: Tensor = encoded.latents if isinstance(self.network, AutoencoderTiny) else encoded.latent_dist.mode()
        return latents.float() * float(self.network.config.scaling_factor)

    @torch.no_grad()
    def decode(self, latents: Tensor) -> Tensor:
        """Return pixels (B, 3, height, width) in float32, clamped to [-1, 1]."""
        scaled = latents / self.network.config.scaling_factor
        pixels: Tensor = self._decode(scaled.to(self.network.dtype)).sample
        return pixels.float().clamp(-1, 1)
