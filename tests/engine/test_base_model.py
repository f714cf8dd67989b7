"""Opening model folders, and refusing what is none or another family."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch

from tests.engine.conftest import BUNDLED_MODEL, edit_json, load
from tests.engine.tiny import build_tiny_pipeline
from workers.engine.base_model import BaseModel
from workers.engine.errors import CovarianceMissing, ModelUnreadable, ModelUnsupported, SettingsInvalid, SizeUnsupported
from workers.engine.generation import GenerationRequest, generate


@pytest.fixture
def folder(tiny_folder: Path, tmp_path: Path) -> Path:
    """A copy of the miniature pipeline, to spoil."""
    return Path(shutil.copytree(tiny_folder, tmp_path / "model"))


def test_a_folder_brings_its_name_and_its_training_settings(tiny: BaseModel) -> None:
    assert tiny.name == "tiny"
    assert tiny.perfusion.steps == 4
    assert tiny.perfusion.value_lr == 0.03  # not in the folder: the paper's
    assert tiny.native_size == 16


def test_a_folder_brings_its_distillation_settings_and_the_prompts_it_can_draw(folder: Path) -> None:
    edit_json(folder / "lockstep.json", distillation={"steps": 7, "student_timesteps": [399]})
    (folder / "prompts.txt").write_text("a red cat\n\n  the dog \n")
    base = load(folder)
    assert (base.distillation.steps, base.distillation.student_timesteps) == (7, (399,))
    assert base.distillation.critic_ratio == 5  # not in the folder: the paper's
    assert base.prompts == ("a red cat", "the dog")


def test_a_folder_may_limit_where_guidance_acts(folder: Path, tiny: BaseModel) -> None:
    edit_json(folder / "lockstep.json", guidance_interval=[0, 0.85])
    assert load(folder).denoiser.schedule.guidance_interval == (0.0, 0.85)
    assert tiny.denoiser.schedule.guidance_interval == (0.0, 1.0)


@pytest.mark.parametrize("interval", [[0.5], [0.8, 0.2], [-0.1, 1], [0, 1.5], ["0", "1"], 0.5, None])
def test_an_interval_that_is_none_is_refused(folder: Path, interval: object) -> None:
    edit_json(folder / "lockstep.json", guidance_interval=interval)
    with pytest.raises(ModelUnreadable, match="guidance_interval"):
        load(folder)


def test_a_folder_without_prompts_has_none(tiny: BaseModel) -> None:
    assert tiny.prompts == ()


def test_prompts_that_are_no_text_are_refused(folder: Path) -> None:
    (folder / "prompts.txt").write_bytes(b"a cat\xff")
    with pytest.raises(ModelUnreadable, match=r"prompts\.txt"):
        load(folder)


def test_other_weights_have_another_hash(tiny: BaseModel, tmp_path: Path) -> None:
    assert load(build_tiny_pipeline(tmp_path, seed=1)).weights != tiny.weights


def test_a_plain_diffusers_folder_draws_but_has_no_metric_for_concepts(folder: Path) -> None:
    (folder / "lockstep.json").unlink()
    (folder / "covariance.safetensors").unlink()
    base = load(folder)
    assert base.name == "model"
    with pytest.raises(CovarianceMissing, match="covariance"):
        _ = base.covariance_sha256


@pytest.mark.parametrize("vae", ["tiny", "kl"])
def test_both_autoencoders_encode_and_decode(tmp_path: Path, vae: str) -> None:
    base = load(build_tiny_pipeline(tmp_path, vae=vae))
    latents = base.autoencoder.encode(torch.rand(2, 3, 16, 16) * 2 - 1)
    assert latents.shape == (2, *base.latent_shape(16, 16))
    assert base.autoencoder.decode(latents).shape == (2, 3, 16, 16)


def test_the_unet_may_run_in_half_the_precision(tiny: BaseModel, tiny_folder: Path) -> None:
    half = BaseModel.load(tiny_folder, device=torch.device("cpu"), dtype=torch.bfloat16)
    assert half.denoiser.dtype == torch.bfloat16
    assert half.fingerprint == tiny.fingerprint  # text and metric stay in float32
    assert half.weights == tiny.weights  # or the pairs and students of one device would not fit another
    x, t = torch.randn(1, 4, 8, 8), torch.tensor([500])
    conditioning = tiny.projections.project(torch.randn(1, 24, 32), torch.randn(1, 24, 32))
    with torch.no_grad():
        output = half.denoiser.output(x, t, conditioning)
        assert output.dtype == torch.float32
        torch.testing.assert_close(output, tiny.denoiser.output(x, t, conditioning), atol=0.1, rtol=0.1)


@pytest.mark.parametrize(("width", "height"), [(16, 16), (32, 32), (4, 32), (18, 22)])
def test_sizes_up_to_twice_the_native_one_are_served(tiny: BaseModel, width: int, height: int) -> None:
    assert tiny.latent_shape(width, height) == (4, height // 2, width // 2)


@pytest.mark.parametrize(("width", "height"), [(0, 16), (-16, 16), (17, 16), (16, 34), (2, 16)])
def test_other_sizes_are_refused_with_the_bounds(tiny: BaseModel, width: int, height: int) -> None:
    with pytest.raises(SizeUnsupported, match="multiples of 2 from 4 to 32"):
        tiny.latent_shape(width, height)


def test_other_families_are_refused(folder: Path) -> None:
    index = folder / "model_index.json"
    for changes in (
        {"_class_name": "FluxPipeline"},
        {"_class_name": "StableDiffusionXLPipeline"},  # without a second text encoder
        {"_class_name": "StableDiffusionPipeline", "text_encoder": ["transformers", "T5EncoderModel"]},
        {"text_encoder": ["transformers", "CLIPTextModel"], "vae": ["diffusers", "AutoencoderDC"]},
    ):
        edit_json(index, **changes)
        with pytest.raises(ModelUnsupported):
            load(folder)


def test_pickled_weights_are_not_read(folder: Path) -> None:
    (folder / "unet" / "diffusion_pytorch_model.safetensors").unlink()
    torch.save({}, folder / "unet" / "diffusion_pytorch_model.bin")
    with pytest.raises(ModelUnreadable):
        load(folder)


@pytest.mark.parametrize(
    "part",
    [
        "model_index.json",
        "lockstep.json",
        "unet/config.json",
        "vae/diffusion_pytorch_model.safetensors",
        "text_encoder/model.safetensors",
        "tokenizer/tokenizer.json",
    ],
)
def test_damaged_folders_are_refused(folder: Path, part: str) -> None:
    (folder / part).write_bytes(b"\x00damaged")
    with pytest.raises(ModelUnreadable):
        load(folder)


@pytest.mark.parametrize("model", ["", "/no/such/folder", "../no/such", "a/b/c"])
def test_what_is_neither_folder_nor_hub_id_is_refused(model: str) -> None:
    with pytest.raises(ModelUnreadable, match="neither"):
        BaseModel.load(model, device=torch.device("cpu"), dtype=torch.float32)


def test_training_settings_of_a_folder_are_checked(folder: Path) -> None:
    for settings in ({"perfusion": {"step": 3}}, {"distillation": {"stepz": 3}}):
        edit_json(folder / "lockstep.json", **{"perfusion": {}, "distillation": {}} | settings)
        with pytest.raises(SettingsInvalid, match="step"):
            load(folder)


def test_the_bundled_model_draws_and_has_its_metric(storybook: BaseModel) -> None:
    assert storybook.covariance is not None
    assert storybook.covariance.inverse.shape == (storybook.text.width,) * 2
    request = GenerationRequest("a red cat", seed=1, steps=4, guidance=3.0, width=64, height=64)
    answers = generate(storybook, [request], batch_size=1, on_progress=lambda *_: None, should_stop=lambda: False)
    assert [type(answer).__name__ for answer in answers] == ["Image"]
    assert BUNDLED_MODEL.is_dir()
