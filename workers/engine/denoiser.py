"""One contract over a diffusers U-Net: latents, time and conditioning in, a prediction in float32 out.

Precision is decided here and nowhere else: latents, schedule and losses are float32, the U-Net runs in the dtype it
was loaded in, and its inputs are cast on the way in.

Dimensions:  B samples, C x H x W latents
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
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
    def dtype(self) -> torch.dtype:
        """The precision the U-Net runs in."""
        return precision_of(self.unet)

    def output(
        self, x_t: Tensor, timesteps: Tensor, conditioning: Conditioning, attention_maps: AttentionMaps | None = None
    ) -> Tensor:
        """Return the network's own prediction (eps, v or x0) for x_t (B, C, H, W) at timesteps (B,)."""
        dtype = self.dtype
        told = conditioning.to(dtype)
        kwargs: dict[str, object] = {"conditioning": told}
        if attention_maps is not None:
            kwargs["attention_maps"] = attention_maps
        output: Tensor = self._network(
            x_t.to(dtype),
            timesteps,
            encoder_hidden_states=None,
            cross_attention_kwargs=kwargs,
            added_cond_kwargs=None if told.added is None else told.added.as_arguments(),
        ).sample
        return output.float()

    def predict_x0(self, x_t: Tensor, timesteps: Tensor, conditioning: Conditioning) -> Tensor:
        """Return the clean latents that the network sees in x_t."""
        return self.schedule.to_x0(self.output(x_t, timesteps, conditioning), x_t, timesteps)
