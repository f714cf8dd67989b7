"""What is shipped in `models/`: small enough for the repository, whole, and able to draw what it is asked for."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import StableDiffusionPipeline

from workers.engine.base_model import BaseModel
from workers.engine.perfusion.covariance import Covariance
from workers.engine.storybook.clip_networks import load_clip
from workers.engine.storybook.drawing import Drawing, draw
from workers.engine.storybook.identity import KINDS
from workers.engine.storybook.judges import AttributeJudge, IdentityJudge
from workers.engine.storybook.networks import load_pipeline
from workers.engine.storybook.scores import held_out, identity_accuracy, prompt_following

MODELS = Path(__file__).parents[3] / "models"
MODEL, JUDGES = MODELS / "storybook", MODELS / "storybook-judges"
FILES = [path for path in MODELS.rglob("*") if path.is_file()]


@pytest.fixture(scope="module")
def pipeline() -> StableDiffusionPipeline:
    return load_pipeline(MODEL)


def test_every_shard_is_below_16_mib_and_all_together_below_40_mb():
    sizes = [path.stat().st_size for path in FILES if path.suffix == ".safetensors"]
    assert max(sizes) < 16 * 2**20
    assert sum(sizes) < 40e6


def test_weights_are_safetensors_only():
    assert {path.suffix for path in FILES} <= {".json", ".safetensors", ".md", ".png", ".txt"}


def test_the_unet_has_at_most_eight_million_parameters(pipeline: StableDiffusionPipeline):
    assert sum(parameter.numel() for parameter in pipeline.unet.parameters()) <= 8e6


def test_the_text_tower_is_that_of_the_clip_pair(pipeline: StableDiffusionPipeline):
    clip, tokenizer = load_clip(MODELS / "storybook-clip")
    ours = pipeline.text_encoder.state_dict()
    assert all(torch.equal(weight, ours[name]) for name, weight in clip.text_model.state_dict().items())
    assert tokenizer.get_vocab() == pipeline.tokenizer.get_vocab()


def test_a_stock_pipeline_loads_in_one_precision(pipeline: StableDiffusionPipeline):
    parts = (pipeline.unet, pipeline.vae, pipeline.text_encoder)
    assert {parameter.dtype for part in parts for parameter in part.parameters()} == {torch.float32}


def test_every_resolution_has_cross_attention(pipeline: StableDiffusionPipeline):
    kinds = [*pipeline.unet.config.down_block_types, *pipeline.unet.config.up_block_types]
    assert all("CrossAttn" in kind for kind in kinds)


def test_every_superclass_is_one_token(pipeline: StableDiffusionPipeline):
    facts = json.loads((MODEL / "lockstep.json").read_text())
    assert facts["superclasses"] == list(KINDS)
    for word in facts["superclasses"]:
        assert len(pipeline.tokenizer.tokenize(word)) == 1


def test_the_covariance_is_of_this_text_tower(pipeline: StableDiffusionPipeline):
    width = pipeline.text_encoder.config.hidden_size
    inverse = Covariance.load(MODEL / "covariance.safetensors").inverse
    assert inverse.shape == (width, width)
    assert torch.linalg.eigvalsh(inverse.double()).min() > 0


def test_it_follows_prompts(storybook: BaseModel):
    asked = held_out(16, first=0)
    pictures = draw(storybook, [prompted.prompt for prompted in asked], Drawing(steps=12, guidance=3.0))
    scores = prompt_following(AttributeJudge.load(JUDGES), pictures, asked)
    assert scores["colour"].generated >= 0.7
    assert scores["scene"].generated >= 0.7
    assert scores["class"].generated >= 0.6


def test_a_seed_draws_the_same_picture_in_any_company(storybook: BaseModel):
    how = Drawing(steps=4, guidance=3.0, first_seed=1)
    alone, first = (draw(storybook, prompts, how)[0] for prompts in (["a red cat"], ["a red cat", "a blue car"]))
    assert np.abs(alone.astype(int) - first).max() <= 1


def test_the_identity_judge_tells_lookalikes_apart():
    assert identity_accuracy(IdentityJudge.load(JUDGES), groups=6).share >= 0.8
