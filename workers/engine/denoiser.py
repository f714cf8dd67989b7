"""One contract over a diffusers U-Net: latents, time and conditioning in, a prediction in float32 out.

Precision is decided here and nowhere else: latents, schedule and losses are float32, the U-Net runs in the dtype it
was loaded in, and its inputs are cast on the way in.

Dimensions:  B samples, C x H x W latents
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from diffusers import UNet2DConditionModel
from torch import Tensor

from workers.engine.attention import AttentionMaps, Conditioning
from workers.engine.schedule import NoiseSchedule


def precision_of(unet: UNet2DConditionModel) -> torch.dtype:
    """Return the dtype of a U-Net's weights.

    Its own `dtype` looks through all modules: a tenth of a small network's time, at every step.
    """
    dtype: torch.dtype = next(unet.parameters()).dtype
    return dtype


class Denoiser:
    """A U-Net that reads its conditioning, with its noise schedule."""

    def __init__(
        self, unet: UNet2DConditionModel, schedule: NoiseSchedule, compiled: Callable[..., Any] | None = None
    ) -> None:
        """``compiled`` is called in the place of ``unet``, which it was made of."""
        self.unet = unet
        self.schedule = schedule
        self._network = unet if compiled is None else compiled

    @property
    def reads_guidance(self) -> bool:
        """Whether the network is told the guidance scale, as those are that were distilled at many of them."""
        return self.unet.config.time_cond_proj_dim is not None

    @property
    def dtype(self) -> torch.dtype:
        """The precision the U-Net runs in."""
        return precision_of(self.unet)

    def output(
        self,
        x_t: Tensor,
        timesteps: Tensor,
        conditioning: Conditioning,
        attention_maps: AttentionMaps | None = None,
        guidance: Tensor | None = None,
    ) -> Tensor:
        """Return the network's own prediction (eps, v or x0) for x_t (B, C, H, W) at timesteps (B,).

        ``guidance`` (B,) is for a network that reads it.
        """
        dtype = self.dtype
        told = conditioning.to(dtype)
        kwargs: dict[str, object] = {"conditioning": told}
        if attention_maps is not None:
            kwargs["attention_maps"] = attention_maps
        output: Tensor = self._network(
            x_t.to(dtype),
            timesteps,
            encoder_hidden_states=None,
            timestep_cond=None if guidance is None else self._told(guidance).to(dtype),
            cross_attention_kwargs=kwargs,
            added_cond_kwargs=None if told.added is None else told.added.as_arguments(),
        ).sample
        return output.float()

    def predict_x0(
        self, x_t: Tensor, timesteps: Tensor, conditioning: Conditioning, guidance: Tensor | None = None
    ) -> Tensor:
        """Return the clean latents that the network sees in x_t; ``guidance`` as of `output`."""
        return self.schedule.to_x0(self.output(x_t, timesteps, conditioning, guidance=guidance), x_t, timesteps)

    def _told(self, guidance: Tensor) -> Tensor:
        """Return the embedding (B, time_cond_proj_dim) of guidance scales (B,), at least 1, which is no guidance.

        Source: Luo et al. 2023 (arXiv 2310.04378), whose w is what guidance adds: the scale less 1. The frequencies are
        those of Kingma et al. 2021 (variational diffusion models), of 1000 w.
        """
        half = int(self.unet.config.time_cond_proj_dim) // 2
        rates = torch.exp(torch.arange(half, device=guidance.device) * (-math.log(10_000) / (half - 1)))  # (half,)
        angles = 1000 * (guidance.clamp(min=1) - 1)[:, None] * rates  # (B, half)
        waves = torch.cat([angles.sin(), angles.cos()], dim=1)
        return F.pad(waves, (0, int(self.unet.config.time_cond_proj_dim) % 2))
