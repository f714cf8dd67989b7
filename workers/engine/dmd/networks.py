"""The networks of a distillation: one contract, and a U-Net under it that projects text encodings itself.

Serving reads edited keys and values from outside the U-Net (attention.py). Here nothing is edited and a free student
learns its own K and V, so the trained copies run as diffusers made them, from encodings; the teacher is the base
model's own weights in such a copy, which costs no memory.

Dimensions:  B samples, C x H x W latents
"""

from __future__ import annotations

import copy
import hashlib
from abc import ABC, abstractmethod
from collections.abc import Iterator
from typing import Self

import torch
import torch.nn.functional as F
from diffusers import UNet2DConditionModel
from diffusers.models.attention_processor import AttnProcessor, AttnProcessor2_0
from torch import Tensor, nn

from workers.engine.denoiser import precision_of
from workers.engine.dmd.context import Context
from workers.engine.schedule import NoiseSchedule

_LOCKED = (".attn2.to_k.weight", ".attn2.to_v.weight")


class ScoreNetwork(nn.Module, ABC):
    """Sees clean latents in noisy ones, told what they show by a context."""

    def __init__(self, schedule: NoiseSchedule) -> None:
        super().__init__()
        self.schedule = schedule

    @abstractmethod
    def forward(self, x_t: Tensor, timesteps: Tensor, context: Context) -> Tensor:
        """Return the network's own prediction (eps, v or x0) in float32."""

    @abstractmethod
    def features(self, x_t: Tensor, timesteps: Tensor, context: Context) -> list[Tensor]:
        """Return the features (B, C', H', W') of each layer on the way down, those of its lowest resolution last."""

    def predict_x0(self, x_t: Tensor, timesteps: Tensor, context: Context, /) -> Tensor:
        """Return the clean latents seen in x_t; in float32, as an eps model at t = 999 multiplies rounding by 14.6."""
        output: Tensor = self(x_t, timesteps, context)
        return self.schedule.to_x0(output, x_t, timesteps)

    def trained(self) -> dict[str, nn.Parameter]:
        """Return the parameters that are learned, by name."""
        return {name: parameter for name, parameter in self.named_parameters() if parameter.requires_grad}

    def average(self) -> Self:
        """Return a copy to hold a moving average: what is not learned stays shared, what is gets no gradient."""
        shared = [parameter for parameter in self.parameters() if not parameter.requires_grad]
        return copy.deepcopy(self, {id(parameter): parameter for parameter in shared}).requires_grad_(False)


class UNetScore(ScoreNetwork):
    """A diffusers U-Net of its own, float32 or, under autocast, bfloat16 everywhere but in its last layer."""

    def __init__(self, unet: UNet2DConditionModel, schedule: NoiseSchedule, *, autocast: bool) -> None:
        super().__init__(schedule)
        self.unet = unet
        self.autocast = autocast
        # Torch's fused attention is several times slower than plain products for bfloat16 on CPUs.
        eager = autocast and unet.device.type == "cpu"
        unet.set_attn_processor(AttnProcessor() if eager else AttnProcessor2_0())
        if autocast or precision_of(unet) != torch.float32:
            unet.conv_out.register_forward_hook(_in_float32)

    @classmethod
    def copy_of(cls, unet: UNet2DConditionModel, schedule: NoiseSchedule, *, autocast: bool) -> UNetScore:
        """Return a float32 copy whose every parameter is learned."""
        return cls(copy.deepcopy(unet).float().requires_grad_(True), schedule, autocast=autocast)

    @classmethod
    def view_of(cls, unet: UNet2DConditionModel, schedule: NoiseSchedule, *, autocast: bool) -> UNetScore:
        """Return a network over the same weights, which it never changes."""
        weights = {id(tensor): tensor for tensor in (*unet.parameters(), *unet.buffers())}
        return cls(copy.deepcopy(unet, weights), schedule, autocast=autocast)

    def lock_keys(self) -> None:
        """Freeze K and V of every cross-attention layer: the space that concepts live in."""
        for parameter in self.locked().values():
            parameter.requires_grad_(False)

    def locked(self) -> dict[str, nn.Parameter]:
        """Return what `lock_keys` freezes, by name."""
        return {name: parameter for name, parameter in self.named_parameters() if name.endswith(_LOCKED)}

    def forward(self, x_t: Tensor, timesteps: Tensor, context: Context) -> Tensor:
        """Return eps, v or x0 (B, C, H, W)."""
        with self._precision():
            dtype = precision_of(self.unet)
            output: Tensor = self.unet(x_t.to(dtype), timesteps, **context.to(dtype).as_arguments()).sample
        return output.float()

    def features(self, x_t: Tensor, timesteps: Tensor, context: Context) -> list[Tensor]:
        """Return what goes across to the way up and, where there is one, the middle block's output, in float32."""
        unet, dtype = self.unet, precision_of(self.unet)
        told = context.to(dtype)
        with self._precision():
            x = unet.conv_in(x_t.to(dtype))
            seen = [x]
            when = unet.time_embedding(unet.get_time_embed(sample=x, timestep=timesteps))
            added = unet.get_aug_embed(when, **told.as_arguments())
            when = when if added is None else when + added
            for block in unet.down_blocks:
                x, across = block(x, when, **_cross(block, told.encodings))
                seen += across
            if unet.mid_block is not None:
                seen.append(unet.mid_block(x, when, **_cross(unet.mid_block, told.encodings)))
        return [features.float() for features in seen]

    def _precision(self) -> torch.autocast:
        return torch.autocast(self.unet.device.type, torch.bfloat16, enabled=self.autocast)


def weights_digest(unet: UNet2DConditionModel, precision: torch.dtype = torch.float32) -> str:
    """Hash a U-Net's weights as they are in ``precision``: which teacher drew a pair, whose a checkpoint is."""
    digest = hashlib.sha256()
    for name, chunk in _weights(unet, precision):
        digest.update(name.encode())
        digest.update(chunk)
    return digest.hexdigest()[:16]


def _weights(unet: UNet2DConditionModel, precision: torch.dtype) -> Iterator[tuple[str, bytes]]:
    for name, parameter in sorted(unet.named_parameters()):
        yield name, parameter.detach().to(precision).cpu().contiguous().view(torch.uint8).numpy().tobytes()


def _cross(block: nn.Module, encodings: Tensor) -> dict[str, Tensor]:
    """Return the encodings for a block that looks at them."""
    return {"encoder_hidden_states": encodings} if getattr(block, "has_cross_attention", False) else {}


def _in_float32(layer: nn.Conv2d, inputs: tuple[Tensor], _output: Tensor) -> Tensor:
    """Repeat the last convolution without autocast: its rounding is what x0 multiplies."""
    (x,) = inputs
    with torch.autocast(x.device.type, enabled=False):
        bias = None if layer.bias is None else layer.bias.float()
        return F.conv2d(x.float(), layer.weight.float(), bias, layer.stride, layer.padding)
