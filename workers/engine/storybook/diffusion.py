"""Training objective of the U-Net: v-prediction with weights per latent channel and per place.

Sources: Salimans and Ho, "Progressive Distillation for Fast Sampling of Diffusion Models" (v-prediction);
Lin et al., "Common Diffusion Noise Schedules and Sample Steps are Flawed" (zero terminal signal-to-noise ratio).

| symbol | code | meaning |
|---|---|---|
| z | latents | clean latents, unit variance per channel |
| n | noise | standard normal |
| a_t, s_t | alpha, sigma | sqrt of the cumulative alpha and of its complement |
| x_t = a_t z + s_t n | noisy | what the U-Net sees |
| v = a_t n - s_t z | target | what it predicts |

Fully whitened latents condition the input well, but give a channel of faint detail the same loss as one that carries
the colour: the channel weights, variance ** 0.35, put the loss back where the eye is.
"""

from __future__ import annotations

from typing import Final

import torch
from diffusers import AutoencoderTiny
from torch import Tensor

from workers.engine.storybook.networks import make_scheduler

STEPS: Final = 1000
_CHANNEL_POWER: Final = 0.35
_LOW_SHARE, _LOW_RANGE = 0.10, 0.15
_PATCH: Final = 4


def channel_weights(autoencoder: AutoencoderTiny) -> Tensor:
    """Return the loss weight of each latent channel, mean 1: (1, C, 1, 1).

    The encoder is linear and scales each principal component to one variance, so the squared norm of a channel's row
    is the inverse of the variance it had in the pictures.
    """
    size = 3 * _PATCH * _PATCH
    basis = torch.eye(size).view(size, 3, _PATCH, _PATCH)
    with torch.no_grad():
        rows = autoencoder.encode(basis).latents - autoencoder.encode(torch.zeros_like(basis)).latents  # (48, C, 1, 1)
    variance = 1.0 / rows.square().sum(0)  # (C, 1, 1)
    weights: Tensor = variance**_CHANNEL_POWER
    return (weights / weights.mean())[None]


def sample_timesteps(count: int, generator: torch.Generator) -> Tensor:
    """Draw stratified time steps (B,); the nearly clean 15 % of the range gets 10 % of the draws."""
    order = torch.randperm(count, generator=generator)
    u = (order + torch.rand(count, generator=generator)) / count
    low = u * _LOW_RANGE / _LOW_SHARE
    high = _LOW_RANGE + (u - _LOW_SHARE) / (1 - _LOW_SHARE) * (1 - _LOW_RANGE)
    return (torch.where(u < _LOW_SHARE, low, high) * STEPS).long().clamp(0, STEPS - 1)


class Diffusion:
    """The forward process and the loss, on one device."""

    def __init__(self, weights: Tensor, *, object_weight: float, device: torch.device):
        signal = make_scheduler().alphas_cumprod.to(device)
        self._alpha = signal.sqrt()
        self._sigma = (1 - signal).sqrt()
        self._weights = weights.to(device)
        self._object_weight = object_weight

    def noisy_and_target(self, latents: Tensor, noise: Tensor, timesteps: Tensor) -> tuple[Tensor, Tensor]:
        """Return x_t and v: (B, C, H, W) each."""
        alpha = self._alpha[timesteps].view(-1, 1, 1, 1)
        sigma = self._sigma[timesteps].view(-1, 1, 1, 1)
        return alpha * latents + sigma * noise, alpha * noise - sigma * latents

    def loss(self, prediction: Tensor, target: Tensor, masks: Tensor) -> tuple[Tensor, Tensor]:
        """Return the loss to descend and the unmasked loss of each sample (B,).

        `masks` (B, 1, H, W) says how much of each latent cell a thing covers; such cells count more.
        """
        errors = (prediction - target).square() * self._weights  # (B, C, H, W)
        places = 1 + self._object_weight * masks
        return (errors * places).mean() / places.mean(), errors.detach().mean((1, 2, 3))
