"""One contract over diffusers' autoencoders: pixels in [-1, 1] to scaled latents and back.

U-Nets work on latents of about unit variance, and an autoencoder's configuration says how its own become such:
``latents_mean`` is taken off them and they are divided by ``latents_std``, where it has those, and multiplied by
``scaling_factor``. A tiny autoencoder that was trained to stand in for another one works on the scaled latents.

Dimensions:  B pictures, 3 x height x width pixels, C x H x W latents, height = factor * H
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from diffusers import AutoencoderKL, AutoencoderTiny
from torch import Tensor

from workers.engine.errors import ModelUnsupported


class Autoencoder:
    """An `AutoencoderKL` or an `AutoencoderTiny`, frozen; a tiny ``decoder`` may decode in its place."""

    def __init__(
        self,
        network: AutoencoderKL | AutoencoderTiny,
        decoder: AutoencoderTiny | None = None,
        compiled: Callable[[Tensor], Any] | None = None,
    ) -> None:
        """``compiled`` is called in the place of the decoder's ``decode``, which it was made of.

        Raises ModelUnsupported for a decoder of latents of another shape.
        """
        self.network = network
        self.decoder = decoder or network
        if _latents(self.decoder) != _latents(network):
            raise ModelUnsupported(
                f"the decoder's latents (channels, pixels a cell) are {_latents(self.decoder)}, the model's "
                f"{_latents(network)}"
            )
        self._decode = self.decoder.decode if compiled is None else compiled

    def to(self, device: torch.device) -> Autoencoder:
        """Freeze the networks, move them to the device and return itself."""
        for network in (self.network, self.decoder):
            network.requires_grad_(False).eval().to(device)
        return self

    def with_compiled(self, compiled: Callable[[Tensor], Any]) -> Autoencoder:
        """Return the same with ``compiled`` in the place of the decoder's ``decode``."""
        return Autoencoder(self.network, None if self.decoder is self.network else self.decoder, compiled)

    @property
    def factor(self) -> int:
        """How many pixels one latent cell spans, along each side."""
        return _latents(self.network)[1]

    @torch.no_grad()
    def encode(self, pixels: Tensor) -> Tensor:
        """Return latents (B, C, H, W) in float32; of a KL encoder the mean, so that encoding is deterministic."""
        encoded = self.network.encode(pixels.to(self.network.dtype))
        latents: Tensor = encoded.latents if isinstance(self.network, AutoencoderTiny) else encoded.latent_dist.mode()
        scale, mean = _scaling(self.network, latents.device)
        return (latents.float() - mean) * scale

    @torch.no_grad()
    def decode(self, latents: Tensor) -> Tensor:
        """Return pixels (B, 3, height, width) in float32, clamped to [-1, 1]."""
        scale, mean = _scaling(self.decoder, latents.device)
        pixels: Tensor = self._decode((latents / scale + mean).to(self.decoder.dtype)).sample
        return pixels.float().clamp(-1, 1)


def _latents(network: AutoencoderKL | AutoencoderTiny) -> tuple[int, int]:
    """Return the number of channels, and of pixels that a cell spans along each side."""
    return int(network.config.latent_channels), 1 << (len(network.config.block_out_channels) - 1)


def _scaling(network: AutoencoderKL | AutoencoderTiny, device: torch.device) -> tuple[float | Tensor, float | Tensor]:
    """Return what latents are multiplied by, and what is taken off before: numbers, or one for each channel."""
    factor = float(network.config.scaling_factor)
    mean, std = network.config.get("latents_mean"), network.config.get("latents_std")
    if mean is None or std is None:
        return factor, 0.0
    mean, std = (torch.tensor(numbers, device=device)[:, None, None] for numbers in (mean, std))  # (C, 1, 1)
    return factor / std, mean
