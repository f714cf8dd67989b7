"""The two CLIP pairs and the folders they are shipped in.

Pictures (B, 3, 64, 64) in [-1, 1] and token ids (B, 32) become features of one common space of 128 dimensions.
"""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Final

import torch
from transformers import CLIPConfig, CLIPImageProcessorPil, CLIPModel, CLIPTextModel, CLIPTokenizer, CLIPVisionConfig

from workers.engine.storybook.networks import WIDTH
from workers.engine.storybook.world import SIZE

PATCH: Final = 8


def make_clip(text_encoder: CLIPTextModel) -> CLIPModel:
    """Return a pair around a copy of this text tower, with a vision tower of its size and random weights."""
    vision = CLIPVisionConfig(
        hidden_size=WIDTH,
        intermediate_size=2 * WIDTH,
        projection_dim=WIDTH,
        num_hidden_layers=3,
        num_attention_heads=4,
        hidden_act="gelu",
        image_size=SIZE,
        patch_size=PATCH,
    )
    text = text_encoder.config.to_dict()
    clip = CLIPModel(CLIPConfig(text_config=text, vision_config=vision.to_dict(), projection_dim=WIDTH))
    clip.text_model.load_state_dict(text_encoder.state_dict())
    return clip


def make_image_processor() -> CLIPImageProcessorPil:
    """Return what turns a picture of any size into the vision tower's input."""
    return CLIPImageProcessorPil(
        size={"shortest_edge": SIZE},
        crop_size={"height": SIZE, "width": SIZE},
        image_mean=[0.5] * 3,
        image_std=[0.5] * 3,
    )


@torch.no_grad()
def round_to_half(clip: CLIPModel) -> CLIPModel:
    """Round the weights, in place, to what fp16 can hold: the stored pair and its fp32 text tower then agree."""
    return clip.half().float()


def text_tower(clip: CLIPModel) -> CLIPTextModel:
    """Return a copy of the pair's text tower, for a pipeline."""
    tower = CLIPTextModel(clip.config.text_config)
    tower.load_state_dict(clip.text_model.state_dict())
    return tower.eval()


def save_clip(folder: Path, clip: CLIPModel, tokenizer: CLIPTokenizer) -> None:
    """Write the pair in fp16 as a plain CLIP folder."""
    copy.deepcopy(clip).half().save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    make_image_processor().save_pretrained(folder)


def load_clip(folder: Path) -> tuple[CLIPModel, CLIPTokenizer]:
    """Load a pair in fp32, with its tokenizer."""
    clip = CLIPModel.from_pretrained(folder, local_files_only=True, dtype=torch.float32)
    return clip.eval(), CLIPTokenizer.from_pretrained(folder, local_files_only=True)
