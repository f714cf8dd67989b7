"""Cross-attention that reads its keys and values instead of computing them.

Text encodings depend neither on the time step nor on the layer, so the keys and values of every cross-attention layer
are one matrix product, done once per prompt outside the U-Net (`conditioning.py`). The U-Net only reads the result.

Dimensions:  B samples, N token positions, D text encoder width, O_l width of layer l, O = sum of O_l,
             P positions of a feature map, H heads, d = O_l / H
Layer order: as ``unet.named_modules()`` yields the modules called ``attn2``; concept files rely on it.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import ParamSpec

import torch
import torch.nn.functional as F
from diffusers import UNet2DConditionModel
from diffusers.models.attention_processor import Attention, AttnProcessor2_0
from torch import Tensor

from workers.engine.added_conditions import AddedConditions
from workers.engine.errors import ModelUnsupported

Parameters = ParamSpec("Parameters")


@dataclass(frozen=True)
class Conditioning:
    """All that a U-Net is told of its samples, whatever it is made of.

    Keys and values are those of all cross-attention layers side by side, each (B, N, O); ``added`` is there where the
    U-Net is SDXL-shaped.
    """

    keys: Tensor
    values: Tensor
    widths: tuple[int, ...]
    added: AddedConditions | None = None

    def layer(self, index: int) -> tuple[Tensor, Tensor]:
        """Return the keys and values of one layer, each (B, N, O_l)."""
        start, width = sum(self.widths[:index]), self.widths[index]
        return self.keys.narrow(-1, start, width), self.values.narrow(-1, start, width)

    def select(self, samples: Tensor) -> Conditioning:
        """Return the rows ``samples`` (B',), which may repeat."""
        added = None if self.added is None else self.added.select(samples)
        return Conditioning(self.keys[samples], self.values[samples], self.widths, added)

    def to(self, dtype: torch.dtype) -> Conditioning:
        """Return the same numbers in the precision of the U-Net."""
        added = None if self.added is None else self.added.to(dtype)
        return Conditioning(self.keys.to(dtype), self.values.to(dtype), self.widths, added)

    @staticmethod
    def concatenate(parts: Sequence[Conditioning]) -> Conditioning:
        """Join batches, in order."""
        return Conditioning(
            torch.cat([part.keys for part in parts]),
            torch.cat([part.values for part in parts]),
            parts[0].widths,
            AddedConditions.concatenate([part.added for part in parts]),
        )


@dataclass(frozen=True)
class KeyValueProjections:
    """The frozen K and V matrices of all cross-attention layers, each fused to (O, D), in float32."""

    names: tuple[str, ...]
    widths: tuple[int, ...]
    keys: Tensor
    values: Tensor

    @property
    def total_width(self) -> int:
        """O: the length of one target output over all layers."""
        return sum(self.widths)

    @classmethod
    def of(cls, unet: UNet2DConditionModel) -> KeyValueProjections:
        """Collect the projections; raises ModelUnsupported where a layer is more than two matrices."""
        layers = [(name, module) for name, module in unet.named_modules() if name.endswith("attn2")]
        for name, attention in layers:
            plain = attention.to_k.bias is None and attention.to_v.bias is None and not attention.norm_cross
            if not plain or attention.to_k.in_features != unet.config.cross_attention_dim:
                raise ModelUnsupported(f"layer {name} is not plain cross-attention over the text encoding")
        if not layers:
            raise ModelUnsupported("the U-Net has no cross-attention")
        return cls(
            names=tuple(name for name, _ in layers),
            widths=tuple(int(attention.to_k.out_features) for _, attention in layers),
            keys=torch.cat([attention.to_k.weight.detach().float() for _, attention in layers]),  # (O, D)
            values=torch.cat([attention.to_v.weight.detach().float() for _, attention in layers]),  # (O, D)
        )

    def project(self, key_encodings: Tensor, value_encodings: Tensor) -> Conditioning:
        """Return the unedited keys and values of encodings (B, N, D)."""
        return Conditioning(F.linear(key_encodings, self.keys), F.linear(value_encodings, self.values), self.widths)


class AttentionMaps:
    """Collects how much each feature-map position looks at chosen tokens, over all layers and heads."""

    def __init__(self, token_weights: Tensor) -> None:
        """``token_weights`` (B, N) picks and weighs the tokens to look for."""
        self.token_weights = token_weights
        self.maps: list[Tensor] = []

    def record(self, query: Tensor, key: Tensor) -> None:
        """Add the map of one layer from its queries (B, H, P, d) and keys (B, H, N, d)."""
        weights = torch.softmax(query @ key.mT * query.shape[-1] ** -0.5, dim=-1)  # (B, H, P, N)
        self.maps.append((weights.mean(1) @ self.token_weights[..., None]).squeeze(-1))  # (B, P)


def signed(method: Callable[Parameters, Tensor]) -> Callable[Parameters, Tensor]:
    """Keep a signature with its method: diffusers asks for it at every call, and Python would work it out each time."""
    method.__signature__ = inspect.signature(method)  # type: ignore[attr-defined]
    return method


class ConditionedCrossAttention:
    """Attends to the keys and values that the conditioning holds for one layer.

    Bit-equal to diffusers' ``AttnProcessor2_0`` where the conditioning holds that layer's plain projections.
    """

    def __init__(self, layer: int) -> None:
        self.layer = layer

    @signed
    def __call__(
        self,
        attn: Attention,
        hidden_states: Tensor,
        encoder_hidden_states: Tensor | None = None,  # noqa: ARG002 - diffusers passes it; the conditioning replaces it
        attention_mask: Tensor | None = None,  # noqa: ARG002 - padding tokens are attended to, as in training
        *,
        conditioning: Conditioning,
        attention_maps: AttentionMaps | None = None,
    ) -> Tensor:
        """Return the attention's output (B, P, O_l)."""
        key, value = conditioning.layer(self.layer)
        query = _split_heads(attn.to_q(hidden_states), attn.heads)  # (B, H, P, d)
        key, value = _split_heads(key, attn.heads), _split_heads(value, attn.heads)  # (B, H, N, d)
        if attention_maps is not None:
            attention_maps.record(query, key)
        attended = F.scaled_dot_product_attention(query, key, value)  # (B, H, P, d)
        output: Tensor = attn.to_out[0](attended.transpose(1, 2).flatten(2))  # (B, P, O_l)
        return output


class SelfAttention:
    """Diffusers' own self-attention, naming the keyword arguments meant for its neighbours, as diffusers demands."""

    def __init__(self) -> None:
        self.plain = AttnProcessor2_0()

    @signed
    def __call__(
        self,
        attn: Attention,
        hidden_states: Tensor,
        encoder_hidden_states: Tensor | None = None,
        attention_mask: Tensor | None = None,
        *,
        conditioning: Conditioning,  # noqa: ARG002 - for the cross-attention layers
        attention_maps: AttentionMaps | None = None,  # noqa: ARG002 - likewise
    ) -> Tensor:
        """Return the attention's output (B, P, O_l)."""
        output: Tensor = self.plain(attn, hidden_states, encoder_hidden_states, attention_mask)
        return output


def install(unet: UNet2DConditionModel, projections: KeyValueProjections) -> None:
    """Make every cross-attention layer of ``unet`` read its keys and values from ``cross_attention_kwargs``."""
    processors: dict[str, SelfAttention | ConditionedCrossAttention] = {
        name: SelfAttention() for name in unet.attn_processors
    }
    for index, name in enumerate(projections.names):
        processors[f"{name}.processor"] = ConditionedCrossAttention(index)
    unet.set_attn_processor(processors)


def _split_heads(features: Tensor, heads: int) -> Tensor:
    batch, positions, width = features.shape
    return features.view(batch, positions, heads, width // heads).transpose(1, 2)  # (B, H, positions, d)
