"""The autoencoder: an encoder that is principal component analysis exactly, and a small trained decoder.

Each 4 x 4 patch becomes the first eight principal components, each scaled to standard deviation 0.5. Because
the encoder has no activations, that linear map is written straight into its convolutions and needs no training; latents
of the whole set are fixed from the start, and the decoder can be improved later without touching the U-Net.
"""

from __future__ import annotations

import logging
import math
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
import torch
from diffusers import AutoencoderTiny
from numpy.typing import NDArray
from torch import Tensor

from workers.engine.storybook.data import Shard, load_set
from workers.engine.storybook.networks import LATENT_CHANNELS

log = logging.getLogger(__name__)

PATCH: Final = 4
_STD: Final = 0.5
_CROP: Final = 32


@dataclass(frozen=True)
class DecoderSettings:
    """How to train the decoder."""

    minutes: float
    batch: int = 24
    learning_rate: float = 3e-3
    latent_noise: float = 0.03
    seed: int = 0
    device: str = "cpu"


def sample_pictures(cache: Path, count: int, seed: int) -> NDArray[np.uint8]:
    """Draw pictures (N, 64, 64, 3) from both sets of the cache, half from each."""
    rng = np.random.default_rng(seed)
    halves = [_draw(load_set(cache, name), count // 2, rng) for name in ("studio", "outdoors")]
    return np.concatenate(halves)


def _draw(shards: list[Shard], count: int, rng: np.random.Generator) -> NDArray[np.uint8]:
    picks = [(shards[s], rng.integers(len(shards[s].pixels))) for s in rng.integers(len(shards), size=count)]
    return np.stack([shard.pixels[k] for shard, k in picks])


def fit_encoder(autoencoder: AutoencoderTiny, pictures: NDArray[np.uint8]) -> None:
    """Write the principal components of these pictures' patches into the encoder."""
    patches = _patches(pictures)  # (P, 48)
    mean = patches.mean(0)
    variances, vectors = np.linalg.eigh(np.cov((patches - mean).T))
    top = slice(None, -LATENT_CHANNELS - 1, -1)
    projection = (vectors[:, top] * (_STD / np.sqrt(variances[top]))).T  # (8, 48)
    _write_projection(autoencoder, torch.from_numpy(projection).float(), torch.from_numpy(mean).float())


def _patches(pictures: NDArray[np.uint8]) -> NDArray[np.float64]:
    """Cut pictures into flattened patches in [-1, 1], ordered (row, column, channel)."""
    side = pictures.shape[1] // PATCH
    values = pictures.astype(np.float64) / 127.5 - 1
    grid = values.reshape(-1, side, PATCH, side, PATCH, 3).transpose(0, 1, 3, 2, 4, 5)
    return grid.reshape(-1, PATCH * PATCH * 3)


@torch.no_grad()
def _write_projection(autoencoder: AutoencoderTiny, projection: Tensor, mean: Tensor) -> None:
    """Spell the patch projection as conv, space-to-depth, space-to-depth with projection, bias.

    The encoder first maps [-1, 1] to [0, 1], which the first convolution undoes. A stride-2 convolution of kernel 3 and
    padding 1 sees the 2 x 2 block of an output cell in its taps [1:3, 1:3].
    """
    first, fold, project, shift = autoencoder.encoder.layers
    for layer in (first, fold, project, shift):
        layer.weight.zero_()
        if layer.bias is not None:
            layer.bias.zero_()
    for channel in range(3):
        first.weight[channel, channel, 1, 1] = 2.0
        first.bias[channel] = -1.0
    cells = [(row, column, channel) for row in range(2) for column in range(2) for channel in range(3)]
    for index, (row, column, channel) in enumerate(cells):
        fold.weight[index, channel, 1 + row, 1 + column] = 1.0
        for big_row in range(2):
            for big_column in range(2):
                source = ((2 * big_row + row) * PATCH + 2 * big_column + column) * 3 + channel
                project.weight[:LATENT_CHANNELS, index, 1 + big_row, 1 + big_column] = projection[:, source]
    for channel in range(LATENT_CHANNELS):
        shift.weight[channel, channel, 1, 1] = 1.0
    shift.bias.copy_(-projection @ mean)


def train_decoder(autoencoder: AutoencoderTiny, cache: Path, settings: DecoderSettings) -> float:
    """Train the decoder on random crops for the given time, and return its PSNR in dB on pictures kept aside."""
    device = torch.device(settings.device)
    autoencoder.to(device).requires_grad_(False)
    decoder = autoencoder.decoder.requires_grad_(True).train()
    optimiser = torch.optim.AdamW(decoder.parameters(), settings.learning_rate, betas=(0.9, 0.98), weight_decay=1e-4)
    generator = torch.Generator().manual_seed(settings.seed)
    drawn = torch.from_numpy(sample_pictures(cache, 20_000, settings.seed)).permute(0, 3, 1, 2)  # (N, 3, 64, 64)
    aside, pictures = drawn[::200], drawn[torch.arange(len(drawn)) % 200 != 0]
    started, step = time.monotonic(), 0
    while (spent := (time.monotonic() - started) / (settings.minutes * 60)) < 1:
        rate = settings.learning_rate * min(1.0, (step + 1) / 40) * (0.5 + 0.5 * math.cos(math.pi * spent))
        for group in optimiser.param_groups:
            group["lr"] = rate
        crops = _crops(pictures, settings.batch, generator).to(device)  # (B, 3, 32, 32)
        with torch.no_grad():
            latents = autoencoder.encode(crops).latents
            latents = latents + settings.latent_noise * torch.randn_like(latents)
        loss = _reconstruction_loss(decoder(latents), crops)
        optimiser.zero_grad()
        torch.autograd.backward(loss)
        torch.nn.utils.clip_grad_norm_(decoder.parameters(), 1.0)
        optimiser.step()
        step += 1
        if step % 500 == 0:
            log.info("decoder step %d, loss %.4f", step, loss.item())
    return psnr(autoencoder, aside.to(device))


@torch.no_grad()
def psnr(autoencoder: AutoencoderTiny, pictures: Tensor) -> float:
    """Return the mean peak signal-to-noise ratio of uint8 pictures (N, 3, 64, 64), in dB."""
    clean = pictures.float() / 127.5 - 1
    back = autoencoder.decode(autoencoder.encode(clean).latents).sample.clamp(-1, 1)
    errors = (back - clean).square().mean((1, 2, 3))
    return float((10 * torch.log10(4 / errors)).mean())


def _crops(pictures: Tensor, count: int, generator: torch.Generator) -> Tensor:
    """Cut random crops on the patch grid, in [-1, 1]."""
    picks = torch.randint(len(pictures), (count,), generator=generator).tolist()
    corners = torch.randint((64 - _CROP) // PATCH + 1, (count, 2), generator=generator).mul(PATCH).tolist()
    cut = [pictures[k, :, y : y + _CROP, x : x + _CROP] for k, (y, x) in zip(picks, corners, strict=True)]
    return torch.stack(cut).float() / 127.5 - 1


def _reconstruction_loss(back: Tensor, clean: Tensor) -> Tensor:
    """L1 + 2 MSE + half the L1 of the gradients, which keeps outlines sharp."""
    error = back - clean
    across, down = error[..., 1:] - error[..., :-1], error[..., 1:, :] - error[..., :-1, :]
    return error.abs().mean() + 2 * error.square().mean() + 0.5 * (across.abs().mean() + down.abs().mean())
