"""The four networks of the bundled model and the pipeline folder they are shipped in.

Shapes: pictures (B, 3, 64, 64) in [-1, 1]; latents (B, 8, 16, 16) of unit variance after `scaling_factor`; token
encodings (B, 32, 128). The U-Net has cross-attention at every resolution, so that concepts act on all of them.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import torch
from diffusers import AutoencoderTiny, DDIMScheduler, StableDiffusionPipeline, UNet2DConditionModel
from torch import Tensor
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

LATENT_CHANNELS: Final = 8
LATENT_SIDE: Final = 16
TOKENS: Final = 32
WIDTH: Final = 128
"""Width of a token encoding."""

_SHARD_BYTES: Final = "14MB"


def make_scheduler() -> DDIMScheduler:
    """Return the sampler: v-prediction, zero terminal signal-to-noise ratio, trailing time steps."""
    return DDIMScheduler(
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        prediction_type="v_prediction",
        rescale_betas_zero_snr=True,
        timestep_spacing="trailing",
        clip_sample=False,
        steps_offset=1,
    )


def make_unet(widths: tuple[int, ...] = (64, 96, 192)) -> UNet2DConditionModel:
    """Return a U-Net with random weights whose first prediction is zero.

    There is no middle block: the lowest level's own blocks attend already, and it would cost two million weights.
    """
    levels = len(widths)
    unet = UNet2DConditionModel(
        sample_size=LATENT_SIDE,
        in_channels=LATENT_CHANNELS,
        out_channels=LATENT_CHANNELS,
        block_out_channels=widths,
        down_block_types=("CrossAttnDownBlock2D",) * levels,
        mid_block_type=None,
        up_block_types=("CrossAttnUpBlock2D",) * levels,
        layers_per_block=1,
        attention_head_dim=tuple(2 << level for level in range(levels)),
        norm_num_groups=16,
        cross_attention_dim=WIDTH,
        time_embedding_dim=128,
    )
    torch.nn.init.zeros_(unet.conv_out.weight)
    torch.nn.init.zeros_(unet.conv_out.bias)
    return unet


def make_autoencoder(width: int = 32) -> AutoencoderTiny:
    """Return an autoencoder whose encoder is linear (no blocks, no activations), so that PCA can be written into it."""
    return AutoencoderTiny(
        encoder_block_out_channels=(16, 16, 16),
        decoder_block_out_channels=(width,) * 3,
        latent_channels=LATENT_CHANNELS,
        num_encoder_blocks=(0, 0, 0),
        num_decoder_blocks=(3, 1, 0),
        scaling_factor=2.0,
    )


def make_text_encoder(tokenizer: CLIPTokenizer) -> CLIPTextModel:
    """Return a text tower with random weights for this vocabulary."""
    return CLIPTextModel(
        CLIPTextConfig(
            vocab_size=len(tokenizer),
            hidden_size=WIDTH,
            intermediate_size=2 * WIDTH,
            projection_dim=WIDTH,
            num_hidden_layers=3,
            num_attention_heads=4,
            max_position_embeddings=TOKENS,
            bos_token_id=tokenizer.bos_token_id,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
        )
    )


def token_ids(tokenizer: CLIPTokenizer, captions: list[str]) -> Tensor:
    """Tokenise as the pipeline does, padded to full length: (B, 32)."""
    batch = tokenizer(captions, padding="max_length", max_length=TOKENS, truncation=True, return_tensors="pt")
    ids: Tensor = batch.input_ids
    return ids


def word_tokens(tokenizer: CLIPTokenizer, words: Sequence[str]) -> list[int]:
    """Return the one token of each word; raises ValueError if a word has several."""
    ids = token_ids(tokenizer, list(words))
    if not bool((ids[:, 2] == tokenizer.eos_token_id).all()):
        raise ValueError("the tokenizer splits the world's nouns")
    tokens: list[int] = ids[:, 1].tolist()
    return tokens


def load_pipeline(folder: Path) -> StableDiffusionPipeline:
    """Load a pipeline folder in fp32, with its progress bar off."""
    pipeline = StableDiffusionPipeline.from_pretrained(folder, local_files_only=True)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def save_pipeline(
    folder: Path,
    *,
    autoencoder: AutoencoderTiny,
    text_encoder: CLIPTextModel,
    tokenizer: CLIPTokenizer,
    unet: UNet2DConditionModel,
) -> None:
    """Write the networks as a plain pipeline folder of fp16 safetensors shards; the networks themselves stay fp32.

    The small text tower is stored in fp32: transformers restores the stored precision where diffusers does not, and a
    pipeline loaded without further words would mix the two.
    """
    pipeline = StableDiffusionPipeline(
        vae=_half_copy(autoencoder),
        text_encoder=text_encoder.float(),
        tokenizer=tokenizer,
        unet=_half_copy(unet),
        scheduler=make_scheduler(),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    pipeline.save_pretrained(folder, safe_serialization=True, max_shard_size=_SHARD_BYTES)


def _half_copy(module: Any) -> Any:
    """Copy a diffusers network in fp16, leaving behind where it was loaded from."""
    copy = type(module).from_config({name: value for name, value in module.config.items() if name[0] != "_"})
    copy.load_state_dict(module.state_dict())
    return copy.half()
