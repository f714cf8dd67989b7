"""What is shipped in `models/`: small enough for the repository, whole, and able to draw what it is asked for."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import StableDiffusionPipeline

from workers.engine.perfusion.covariance import Covariance
from workers.engine.storybook.identity import CLASSES
from workers.engine.storybook.judges import AttributeJudge, IdentityJudge
from workers.engine.storybook.networks import load_pipeline
from workers.engine.storybook.scores import generate, identity_accuracy, prompt_following

MODELS = Path(__file__).parents[3] / "models"
MODEL, JUDGES = MODELS / "storybook", MODELS / "storybook-judges"
MIB = 1 << 20


@pytest.fixture(scope="module")
def pipeline() -> StableDiffusionPipeline:
    return load_pipeline(MODEL)


def test_every_file_is_below_16_mib_and_all_of_them_below_45():
    sizes = [path.stat().st_size for folder in (MODEL, JUDGES) for path in folder.rglob("*") if path.is_file()]
    assert max(sizes) < 16 * MIB
    assert sum(sizes) < 45 * MIB


def test_weights_are_safetensors_only():
    suffixes = {path.suffix for folder in (MODEL, JUDGES) for path in folder.rglob("*") if path.is_file()}
    assert suffixes <= {".json", ".safetensors", ".md", ".png"}


def test_a_stock_pipeline_loads_in_one_precision(pipeline: StableDiffusionPipeline):
    parts = (pipeline.unet, pipeline.vae, pipeline.text_encoder)
    assert {parameter.dtype for part in parts for parameter in part.parameters()} == {torch.float32}


def test_every_resolution_has_cross_attention(pipeline: StableDiffusionPipeline):
    kinds = [*pipeline.unet.config.down_block_types, *pipeline.unet.config.up_block_types]
    assert all("CrossAttn" in kind for kind in kinds)


def test_every_superclass_is_one_token(pipeline: StableDiffusionPipeline):
    facts = json.loads((MODEL / "lockstep.json").read_text())
    assert facts["superclasses"] == list(CLASSES)
    for word in facts["superclasses"]:
        assert len(pipeline.tokenizer.tokenize(word)) == 1


def test_the_covariance_is_of_this_text_tower(pipeline: StableDiffusionPipeline):
    width = pipeline.text_encoder.config.hidden_size
    inverse = Covariance.load(MODEL / "covariance.safetensors").inverse
    assert inverse.shape == (width, width)
    assert torch.linalg.eigvalsh(inverse.double()).min() > 0


def test_the_same_seed_draws_the_same_picture(pipeline: StableDiffusionPipeline):
    first, second = (generate(pipeline, ["a red cat"], steps=4, guidance=3.0, seed=1) for _ in range(2))
    assert np.array_equal(first, second)


def test_it_follows_prompts(pipeline: StableDiffusionPipeline):
    scores = prompt_following(pipeline, AttributeJudge.load(JUDGES), count=16, steps=12, guidance=3.0)
    assert scores["colour"].generated >= 0.7
    assert scores["scene"].generated >= 0.7
    assert scores["class"].generated >= 0.6


def test_the_identity_judge_tells_lookalikes_apart():
    assert identity_accuracy(IdentityJudge.load(JUDGES), groups=6) >= 0.8
