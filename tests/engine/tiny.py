"""A Stable-Diffusion-shaped pipeline in miniature with random weights, for tests that need only the shape.

8x8 latents, two U-Net levels, 32-wide text encodings over 24 tokens, 16x16 pixels; a few words are one token each, all
other text falls apart into bytes.
"""

from __future__ import annotations

import json
from itertools import product
from pathlib import Path

import torch
from diffusers import AutoencoderKL, AutoencoderTiny, DDIMScheduler, UNet2DConditionModel
from tokenizers import pre_tokenizers
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

from workers.engine.perfusion.covariance import compute_covariance
from workers.engine.text import TextEncoder

WORDS = ("a", "the", "cat", "dog", "hat", "teddy", "bear", "photo", "of", "on", "red")
CAPTIONS = [
    " ".join(words)
    for words in product(
        ("a", "the", "a photo of a", "the photo of the"),
        ("red", "teddy"),
        ("cat", "dog", "hat", "bear"),
        ("on a hat", "on the red dog", "red"),
    )
]
TRAINING = {"steps": 4, "batch_size": 2, "templates": ["a {}", "the photo of a {}"], "checkpoint_every": 2}


def build_tiny_pipeline(folder: Path, *, seed: int = 0, prediction: str = "v_prediction", vae: str = "tiny") -> Path:
    """Write the pipeline as a diffusers folder, with covariance and lockstep.json, and return the folder."""
    torch.manual_seed(seed)
    text = _text_encoder()
    text.tokenizer.save_pretrained(folder / "tokenizer")
    text.model.save_pretrained(folder / "text_encoder")
    _unet().save_pretrained(folder / "unet")
    _vae(vae).save_pretrained(folder / "vae")
    DDIMScheduler(
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        prediction_type=prediction,
        rescale_betas_zero_snr=prediction == "v_prediction",
        timestep_spacing="trailing",
        clip_sample=False,
        steps_offset=1,
    ).save_pretrained(folder / "scheduler")
    compute_covariance(text, CAPTIONS, ridge=1e-3).save(folder / "covariance.safetensors")
    (folder / "lockstep.json").write_text(json.dumps({"name": "tiny", "perfusion": TRAINING}))
    index = {
        "_class_name": "StableDiffusionPipeline",
        "tokenizer": ["transformers", "CLIPTokenizer"],
        "text_encoder": ["transformers", "CLIPTextModel"],
        "unet": ["diffusers", "UNet2DConditionModel"],
        "vae": ["diffusers", "AutoencoderTiny" if vae == "tiny" else "AutoencoderKL"],
        "scheduler": ["diffusers", "DDIMScheduler"],
    }
    (folder / "model_index.json").write_text(json.dumps(index))
    return folder


def _text_encoder() -> TextEncoder:
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    merges: list[tuple[str, str]] = []
    for word in WORDS:
        pieces = [*word[:-1], f"{word[-1]}</w>"]
        for end in range(1, len(pieces)):
            pair = ("".join(pieces[:end]), pieces[end])
            merges += [pair] if pair not in merges else []
    entries = [*letters, *(f"{letter}</w>" for letter in letters), *dict.fromkeys(map("".join, merges))]
    vocabulary = {entry: index for index, entry in enumerate([*entries, "<|startoftext|>", "<|endoftext|>"])}
    tokenizer = CLIPTokenizer(vocab=vocabulary, merges=merges, model_max_length=24)
    config = CLIPTextConfig(
        vocab_size=len(vocabulary),
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=2,
        max_position_embeddings=24,
        projection_dim=32,
        initializer_factor=10.0,  # at 1 the random encodings of different words are nearly the same
        bos_token_id=vocabulary["<|startoftext|>"],
        eos_token_id=vocabulary["<|endoftext|>"],
        pad_token_id=vocabulary["<|endoftext|>"],
    )
    return TextEncoder(tokenizer, CLIPTextModel(config).eval().requires_grad_(False))


def _unet() -> UNet2DConditionModel:
    return UNet2DConditionModel(
        sample_size=8,
        in_channels=4,
        out_channels=4,
        block_out_channels=(16, 32),
        layers_per_block=1,
        down_block_types=("CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D"),
        cross_attention_dim=32,
        attention_head_dim=2,
        norm_num_groups=8,
    )


def _vae(kind: str) -> AutoencoderTiny | AutoencoderKL:
    if kind == "tiny":
        return AutoencoderTiny(
            latent_channels=4,
            encoder_block_out_channels=(16, 16),
            decoder_block_out_channels=(16, 16),
            num_encoder_blocks=(0, 0),
            num_decoder_blocks=(1, 0),
        )
    return AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2,
        block_out_channels=(8, 16),
        latent_channels=4,
        norm_num_groups=4,
        layers_per_block=1,
    )
