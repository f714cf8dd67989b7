"""Latents to pictures and back as diffusers' own pipelines do it, by the model's autoencoder or a tiny decoder."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import AutoencoderTiny, StableDiffusionPipeline, StableDiffusionXLPipeline
from PIL import Image

from tests.engine.conftest import edit_json, load
from tests.engine.tiny import build_few_step_pipeline, build_tiny_pipeline, tiny_decoder
from workers.engine.base_model import BaseModel
from workers.engine.dmd.student_model import StudentFacts, export_student
from workers.engine.errors import ModelUnreadable, ModelUnsupported
from workers.engine.generation import GenerationRequest, generate

MEAN, STD = [0.5, -1.0, 2.0, 0.0], [1.5, 0.5, 3.0, 1.0]


def drawn(base: BaseModel) -> np.ndarray:
    request = GenerationRequest("a red cat", seed=7, steps=1, guidance=1.0, width=32, height=16)
    (picture,) = generate(base, [request], batch_size=1, on_progress=lambda *_: None, should_stop=lambda: False)
    assert isinstance(picture, Image.Image), picture
    return np.asarray(picture).astype(int)


def drawn_by_diffusers(pipe: StableDiffusionPipeline | StableDiffusionXLPipeline) -> np.ndarray:
    pipe.set_progress_bar_config(disable=True)
    how = {"num_inference_steps": 1, "guidance_scale": 0.0, "width": 32, "height": 16}
    return np.asarray(pipe("a red cat", generator=torch.Generator().manual_seed(7), **how).images[0]).astype(int)


def opened(pipeline: Any, folder: Path) -> StableDiffusionPipeline | StableDiffusionXLPipeline:
    return pipeline.from_pretrained(folder, low_cpu_mem_usage=False)


@pytest.fixture
def turbo(tmp_path: Path) -> Path:
    return build_few_step_pipeline(tmp_path / "turbo", "euler")


def with_decoder(folder: Path, said: object) -> Path:
    (folder / "lockstep.json").write_text(json.dumps({"decoder": said}))
    return folder


def test_a_tiny_decoder_decodes_as_it_does_in_diffusers(turbo: Path) -> None:
    plain = drawn(load(turbo))
    tiny_decoder(turbo.parent / "taesd")
    base = load(with_decoder(turbo, "../taesd"))
    pipe = opened(StableDiffusionPipeline, turbo)
    pipe.vae = AutoencoderTiny.from_pretrained(turbo.parent / "taesd", low_cpu_mem_usage=False)
    assert np.abs(drawn(base) - drawn_by_diffusers(pipe)).max() <= 1  # grey level
    assert np.abs(drawn(base) - plain).max() > 8


def test_pictures_to_learn_from_are_encoded_by_the_models_own(turbo: Path) -> None:
    pixels = torch.rand(1, 3, 16, 16) * 2 - 1
    plain = load(turbo).autoencoder.encode(pixels)
    base = load(with_decoder(turbo, str(tiny_decoder(turbo.parent / "taesd"))))
    assert torch.equal(base.autoencoder.encode(pixels), plain)


COARSER = {"decoder_block_out_channels": [16] * 3, "num_decoder_blocks": [1, 0, 0]}


@pytest.mark.parametrize("change", [{"latent_channels": 8}, COARSER])
def test_a_decoder_of_other_latents_is_refused(turbo: Path, change: dict[str, object]) -> None:
    config = dict(AutoencoderTiny.load_config(tiny_decoder(turbo.parent / "taesd"))) | change
    del config["block_out_channels"]  # diffusers takes it from the decoder's
    AutoencoderTiny.from_config(config).save_pretrained(turbo.parent / "other")
    with pytest.raises(ModelUnsupported, match="decoder"):
        load(with_decoder(turbo, "../other"))


@pytest.mark.parametrize("said", ["../nowhere", 3, "vae"])  # nothing, no name, another kind of autoencoder
def test_what_is_no_tiny_decoder_is_refused(turbo: Path, said: object) -> None:
    with pytest.raises(ModelUnreadable):
        load(with_decoder(turbo, said))


def test_a_students_folder_brings_the_decoder_along(turbo: Path, tmp_path: Path) -> None:
    tiny_decoder(turbo.parent / "taesd")
    base = load(with_decoder(turbo, "../taesd"))
    facts = StudentFacts("turbo", (999,), 1.0, key_locked=True, steps=1)
    out = tmp_path / "far" / "away" / "student"
    export_student(base.denoiser.unet, facts, name="swift", teacher=turbo, folder=out, dtype=torch.float32)
    assert isinstance(load(out).autoencoder.decoder, AutoencoderTiny)
    assert json.loads((out / "lockstep.json").read_text())["decoder"] == "decoder"


@pytest.mark.parametrize("numbers", [{}, {"latents_mean": MEAN, "latents_std": STD}, {"latents_mean": MEAN}])
def test_latents_are_moved_and_scaled_as_in_diffusers(tmp_path: Path, numbers: dict[str, object]) -> None:
    folder = build_few_step_pipeline(tmp_path, "euler", family="sdxl")
    edit_json(folder / "vae" / "config.json", scaling_factor=0.4, force_upcast=False, **numbers)
    theirs = drawn_by_diffusers(opened(StableDiffusionXLPipeline, folder))
    assert np.abs(drawn(load(folder)) - theirs).max() <= 1  # grey level


def test_what_is_encoded_is_moved_and_scaled_to_where_it_is_decoded_from(tmp_path: Path) -> None:
    folder = build_tiny_pipeline(tmp_path, vae="kl")
    pixels = torch.rand(2, 3, 16, 16) * 2 - 1
    own = load(folder).autoencoder.encode(pixels) / 0.18215
    edit_json(folder / "vae" / "config.json", scaling_factor=0.4, latents_mean=MEAN, latents_std=STD)
    mean, std = (torch.tensor(numbers)[:, None, None] for numbers in (MEAN, STD))
    torch.testing.assert_close(load(folder).autoencoder.encode(pixels), (own - mean) * 0.4 / std)
