"""Makes renders as rough as generated pictures may be, with the autoencoder and simple filters only."""

from __future__ import annotations

import torch
from diffusers import AutoencoderTiny
from torch import Tensor
from torch.nn import functional

_LATENT_NOISE = 0.15
_PIXEL_NOISE = 0.1
_SHARP_SHARE = 0.3
"""Of the rough pictures, how many are not blurred."""


class Roughener:
    """Blurs, noises and decodes half of the pictures it is given, each to a degree of its own."""

    def __init__(self, autoencoder: AutoencoderTiny):
        self._autoencoder = autoencoder.eval().requires_grad_(False).to(memory_format=torch.channels_last)

    @torch.no_grad()
    def __call__(self, pictures: Tensor, rng: torch.Generator) -> Tensor:
        """Roughen a random half of (B, 3, 64, 64) in [-1, 1], and leave the others exactly as they are."""
        chosen = torch.randperm(len(pictures), generator=rng)[: len(pictures) // 2]
        through = len(chosen) // 2
        rough = torch.cat([self._decoded(pictures[chosen[:through]], rng), pictures[chosen[through:]]])
        blurred = functional.avg_pool2d(functional.pad(rough, (1, 1, 1, 1), mode="replicate"), 3, stride=1)
        blur, strength = torch.rand(2, len(rough), 1, 1, 1, generator=rng)
        blur = ((blur - _SHARP_SHARE) / (1 - _SHARP_SHARE)).clamp(min=0)
        noise = _PIXEL_NOISE * strength * torch.randn(rough.shape, generator=rng)
        return pictures.index_copy(0, chosen, (rough + blur * (blurred - rough) + noise).clamp(-1, 1))

    def _decoded(self, pictures: Tensor, rng: torch.Generator) -> Tensor:
        """Send pictures through the autoencoder, noise added to their latents."""
        if not len(pictures):
            return pictures
        latents = self._autoencoder.encode(pictures.contiguous(memory_format=torch.channels_last)).latents.float()
        strength = _LATENT_NOISE * torch.rand(len(latents), 1, 1, 1, generator=rng)
        noise = torch.randn(latents.shape, generator=rng)
        decoded: Tensor = self._autoencoder.decode(latents + strength * noise).sample.float()
        return decoded
