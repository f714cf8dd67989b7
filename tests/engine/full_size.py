"""The true dimensions of the served families: U-Nets without weights, and concepts that are as large as real ones."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Final

import torch
from diffusers import UNet2DConditionModel

from workers.engine.attention import KeyValueProjections
from workers.engine.perfusion.concept import Concept, ConceptFile, KeyLock
from workers.engine.perfusion.config import PerfusionConfig


@dataclass(frozen=True)
class FullSize:
    """One family: its U-Net's configuration where it is not diffusers' default, and the widths of what it is told."""

    unet: dict[str, Any]
    towers: tuple[int, ...]
    pooled: int | None = None

    @property
    def encoder_width(self) -> int:
        """D: of all towers side by side."""
        return sum(self.towers)

    def make_unet(self, device: str = "meta") -> UNet2DConditionModel:
        """Build the U-Net; on the meta device it has shapes and no numbers."""
        with torch.device(device):
            return UNet2DConditionModel(cross_attention_dim=self.encoder_width, **self.unet)

    def make_file(self, key_lock: KeyLock, *, seed: int = 0) -> ConceptFile:
        """Return a concept of random numbers, with the facts that trainings write."""
        generator = torch.Generator().manual_seed(seed)
        widths = KeyValueProjections.of(self.make_unet()).widths

        def draw(width: int) -> torch.Tensor:
            return torch.randn(width, generator=generator)

        embedding, *others = draw(self.encoder_width).split(self.towers)
        keys = draw(sum(widths)) if key_lock is KeyLock.TRAINED else None
        concept = Concept(
            value_outputs=draw(sum(widths)),
            target_input=draw(self.encoder_width),
            embedding=embedding,
            superclass_encoding=draw(self.encoder_width),
            superclass="teddy bear",
            key_outputs=keys,
            embedding_2=others[0] if others else None,
        )
        return ConceptFile(
            concept=concept,
            base_model="full-size",
            encoder_fingerprint="e" * 64,
            covariance_sha256="c" * 64,
            layer_widths=widths,
            key_lock=key_lock,
            steps=400,
            settings=asdict(PerfusionConfig()),
            scores={"loss": 0.123456},
        )


SD15: Final = FullSize({"sample_size": 64, "attention_head_dim": 8}, (768,))
SDXL: Final = FullSize(
    {
        "sample_size": 128,
        "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
        "up_block_types": ("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
        "block_out_channels": (320, 640, 1280),
        "transformer_layers_per_block": (1, 2, 10),
        "attention_head_dim": (5, 10, 20),
        "use_linear_projection": True,
        "addition_embed_type": "text_time",
        "addition_time_embed_dim": 256,
        "projection_class_embeddings_input_dim": 1280 + 6 * 256,
    },
    (768, 1280),
    pooled=1280,
)
