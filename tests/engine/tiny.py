"""Pipelines of the served shapes in miniature with random weights, for tests that need only the shape.

8x8 latents, two U-Net levels, 32-wide text encodings over 24 tokens (SDXL-shaped: 32 and 24 side by side, 20 pooled),
16x16 pixels; a few words are one token each, all other text falls apart into bytes.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from itertools import product
from pathlib import Path
from typing import Literal

import torch
from diffusers import (
    AutoencoderKL,
    AutoencoderTiny,
    DDIMScheduler,
    EulerAncestralDiscreteScheduler,
    EulerDiscreteScheduler,
    LCMScheduler,
    UNet2DConditionModel,
)
from tokenizers import pre_tokenizers
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection, CLIPTokenizer

from workers.engine.perfusion.covariance import compute_covariance
from workers.engine.text import TextEncoder, Tower

Family = Literal["sd", "sdxl"]
Few = Literal["euler", "ancestral", "lcm"]
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


def build_tiny_pipeline(
    folder: Path, *, seed: int = 0, prediction: str = "v_prediction", vae: str = "tiny", family: Family = "sd"
) -> Path:
    """Write the pipeline as a diffusers folder, with covariance and lockstep.json, and return the folder."""
    torch.manual_seed(seed)
    text = random_text_encoder(family)
    for tower, suffix in zip(text.towers, ("", "_2"), strict=False):
        tower.tokenizer.save_pretrained(folder / f"tokenizer{suffix}")
        tower.model.save_pretrained(folder / f"text_encoder{suffix}")
    _unet(family).save_pretrained(folder / "unet")
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
    (folder / "model_index.json").write_text(json.dumps(_index(vae, family)))
    return folder


def build_few_step_pipeline(
    folder: Path, scheduler: Few, *, family: Family = "sd", reads_guidance: bool = False, spacing: str = "trailing"
) -> Path:
    """Write the pipeline as models ship that were distilled to few steps, without files of ours; return the folder."""
    build_tiny_pipeline(folder, prediction="epsilon", vae="kl", family=family)
    for ours in ("lockstep.json", "covariance.safetensors"):
        (folder / ours).unlink()
    if reads_guidance:
        _unet(family, time_cond_proj_dim=10).save_pretrained(folder / "unet")
    rules = _public(DDIMScheduler.load_config(folder / "scheduler"))
    rules |= {"timestep_spacing": spacing, "set_alpha_to_one": False}  # as SDXL's own, whatever its class reads of it
    scheduler_class = {
        "euler": EulerDiscreteScheduler,
        "ancestral": EulerAncestralDiscreteScheduler,
        "lcm": LCMScheduler,
    }[scheduler]
    said = _public(scheduler_class.from_config(rules).config) | rules
    (folder / "scheduler" / "scheduler_config.json").write_text(
        json.dumps(said | {"_class_name": scheduler_class.__name__})
    )
    index = _index("kl", family) | {"scheduler": ["diffusers", scheduler_class.__name__]}
    (folder / "model_index.json").write_text(json.dumps(index))
    return folder


def _public(config: Mapping[str, object]) -> dict[str, object]:
    """A configuration without what diffusers notes of its origin, by which it would take numbers for defaults."""
    return {name: value for name, value in config.items() if not name.startswith("_")}


def tiny_decoder(folder: Path) -> Path:
    """Write a tiny autoencoder for the latents of a pipeline with a KL one, and return the folder."""
    _vae("tiny").save_pretrained(folder)
    return folder


def _index(vae: str, family: Family) -> dict[str, object]:
    index: dict[str, object] = {
        "_class_name": "StableDiffusionPipeline",
        "tokenizer": ["transformers", "CLIPTokenizer"],
        "text_encoder": ["transformers", "CLIPTextModel"],
        "unet": ["diffusers", "UNet2DConditionModel"],
        "vae": ["diffusers", "AutoencoderTiny" if vae == "tiny" else "AutoencoderKL"],
        "scheduler": ["diffusers", "DDIMScheduler"],
    }
    if family == "sd":
        return index
    return index | {
        "_class_name": "StableDiffusionXLPipeline",
        "tokenizer_2": ["transformers", "CLIPTokenizer"],
        "text_encoder_2": ["transformers", "CLIPTextModelWithProjection"],
        "force_zeros_for_empty_prompt": True,
    }


def random_text_encoder(family: Family) -> TextEncoder:
    """Random towers; the second one pads with an exclamation mark, as SDXL's does."""
    if family == "sd":
        tokenizer = _tokenizer("<|endoftext|>")
        return TextEncoder(Tower(tokenizer, _random(CLIPTextModel, tokenizer, width=32, spread=10.0)))
    first, second = _tokenizer("<|endoftext|>"), _tokenizer("!")
    return TextEncoder(
        Tower(first, _random(CLIPTextModel, first, width=32, spread=2.0), penultimate=True),
        Tower(second, _random(CLIPTextModelWithProjection, second, width=24, spread=2.0), penultimate=True),
        blank_is_zero=True,
    )


def _tokenizer(pad: str) -> CLIPTokenizer:
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    merges: list[tuple[str, str]] = []
    for word in WORDS:
        pieces = [*word[:-1], f"{word[-1]}</w>"]
        for end in range(1, len(pieces)):
            pair = ("".join(pieces[:end]), pieces[end])
            merges += [pair] if pair not in merges else []
    entries = [*letters, *(f"{letter}</w>" for letter in letters), *dict.fromkeys(map("".join, merges))]
    vocabulary = {entry: index for index, entry in enumerate([*entries, "<|startoftext|>", "<|endoftext|>"])}
    return CLIPTokenizer(vocab=vocabulary, merges=merges, model_max_length=24, pad_token=pad)


def _random(
    model_class: type[CLIPTextModel] | type[CLIPTextModelWithProjection],
    tokenizer: CLIPTokenizer,
    *,
    width: int,
    spread: float,
) -> CLIPTextModel | CLIPTextModelWithProjection:
    """At a ``spread`` of 1 different words are nearly the same behind the last norm; before it, they grow with it."""
    config = CLIPTextConfig(
        vocab_size=len(tokenizer),
        hidden_size=width,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=2,
        max_position_embeddings=24,
        projection_dim=20,
        initializer_factor=spread,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    return model_class(config).eval().requires_grad_(False)


def _unet(family: Family, **more: object) -> UNet2DConditionModel:
    beside: dict[str, object] = {
        "addition_embed_type": "text_time",
        "addition_time_embed_dim": 8,
        "projection_class_embeddings_input_dim": 20 + 6 * 8,
    }
    return UNet2DConditionModel(
        sample_size=8,
        in_channels=4,
        out_channels=4,
        block_out_channels=(16, 32),
        layers_per_block=1,
        down_block_types=("CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D"),
        cross_attention_dim=32 if family == "sd" else 32 + 24,
        attention_head_dim=2,
        norm_num_groups=8,
        **(beside if family == "sdxl" else {}),
        **more,
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
