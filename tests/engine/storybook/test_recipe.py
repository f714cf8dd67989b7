"""The whole recipe from random weights, as a toy: every stage runs, and what comes out is a plain pipeline folder."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import StableDiffusionPipeline

from tests.engine.conftest import load
from workers.engine.perfusion.covariance import Covariance
from workers.engine.storybook.__main__ import main
from workers.engine.storybook.judges import AttributeJudge, IdentityJudge
from workers.engine.storybook.stages import STAGES


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folders of models and the cache, made by every stage in turn."""
    root = tmp_path_factory.mktemp("recipe")
    places = ["--models", str(root), "--cache", str(root / "cache")]
    for stage in STAGES:
        main([stage, *places, "--init", "none", "--quick"])
    return root


def test_a_stock_pipeline_loads_and_draws(made: Path):
    pipeline = StableDiffusionPipeline.from_pretrained(made / "storybook")
    pipeline.set_progress_bar_config(disable=True)
    picture = pipeline("a red cat", num_inference_steps=2, guidance_scale=3.0).images[0]
    assert picture.size == (64, 64)


def test_no_file_says_where_it_was_made(made: Path):
    for path in (made / "storybook").rglob("*.json"):
        assert str(made) not in path.read_text()
        assert "_name_or_path" not in json.loads(path.read_text())


def test_the_card_tells_scores_and_settings_of_every_stage(made: Path):
    card = (made / "storybook" / "README.md").read_text()
    for word in ("class", "colour", "scene", "night", "accessory", "samples", "psnr", "captions", "seconds"):
        assert word in card
    assert (made / "storybook" / "sheet.png").exists()


def test_the_facts_name_what_the_product_needs(made: Path):
    facts = json.loads((made / "storybook" / "lockstep.json").read_text())
    assert facts["family"] == "stable-diffusion"
    assert facts["size"] == 64
    assert "cat" in facts["superclasses"]


def test_the_covariance_fits_the_text_tower(made: Path):
    covariance = Covariance.load(made / "storybook" / "covariance.safetensors")
    config = json.loads((made / "storybook" / "text_encoder" / "config.json").read_text())
    assert covariance.inverse.shape == (config["hidden_size"],) * 2


def test_judges_survive_saving(made: Path):
    pictures = np.random.default_rng(0).integers(0, 255, (3, 64, 64, 3)).astype(np.uint8)
    embeddings = IdentityJudge.load(made / "storybook-judges").embed(pictures)
    assert embeddings.norm(dim=1).tolist() == pytest.approx([1.0] * 3, abs=1e-5)
    said = AttributeJudge.load(made / "storybook-judges").read(pictures)
    assert {"class", "colour", "scene"} <= said[0].keys()


def test_the_student_is_a_model_of_its_own_with_its_teachers_keys(made: Path):
    student, teacher = load(made / "storybook-student"), load(made / "storybook")
    assert student.student is not None
    assert student.student.key_locked
    assert torch.equal(student.projections.keys, teacher.projections.keys)
    assert teacher.prompts
    assert (made / "storybook-student" / "vae").is_symlink()  # a repository holds what they share once
    assert (made / "cache" / "students" / "students" / "free" / "record.json").exists()


def test_an_unknown_stage_is_refused(capsys: pytest.CaptureFixture[str]):
    with pytest.raises(SystemExit):
        main(["magic"])
    assert "invalid choice" in capsys.readouterr().err
