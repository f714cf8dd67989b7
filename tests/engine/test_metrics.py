"""The figures against closed forms, and one code path for our CLIP folders and any other."""

from __future__ import annotations

import json
import math
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import CLIPConfig, CLIPModel, CLIPTextModel

from tests.engine.conftest import random_pictures
from tests.engine.tiny import build_tiny_pipeline
from workers.engine.metrics import ClipGrader, Figure, clip_i, clip_t, cmmd, frechet, listing, with_floor
from workers.engine.storybook.clip_networks import make_clip, save_clip
from workers.engine.storybook.networks import make_text_encoder
from workers.engine.storybook.text_training import sample_captions, train_tokenizer

PUBLISHED = {
    "crop_size": 224,
    "do_center_crop": True,
    "do_normalize": True,
    "do_resize": True,
    "feature_extractor_type": "CLIPFeatureExtractor",
    "image_mean": [0.48145466, 0.4578275, 0.40821073],
    "image_std": [0.26862954, 0.26130258, 0.27577711],
    "resample": 3,
    "size": 224,
}


def gaussian(count: int, width: int = 6, *, seed: int = 0) -> Tensor:
    return torch.randn(count, width, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def standardised(x: Tensor) -> Tensor:
    """Rows whose mean is exactly zero and whose covariance is exactly the identity."""
    centred = x - x.mean(0)
    whitened: Tensor = centred @ torch.linalg.inv(torch.linalg.cholesky(torch.cov(centred.T))).T
    return whitened


def test_a_set_is_at_no_distance_from_itself():
    x = gaussian(50)
    assert cmmd(x, x) == pytest.approx(0, abs=1e-9)
    assert frechet(x, x) == pytest.approx(0, abs=1e-9)


@pytest.mark.parametrize("measure", [clip_i, cmmd, frechet])
def test_the_order_of_sets_does_not_matter(measure):
    x, y = gaussian(40), gaussian(40, seed=1) + 0.5
    assert measure(x, y) == pytest.approx(measure(y, x))


def test_frechet_of_gaussians_with_commuting_covariances_is_the_closed_form():
    x = standardised(gaussian(100))
    scales, shift = torch.tensor([1.0, 2.0, 0.5, 3.0, 0.0, 1.5]).double(), torch.arange(6).double()
    expected = shift.square().sum() + (1 - scales).square().sum()
    assert frechet(x, x * scales + shift) == pytest.approx(float(expected))


def test_frechet_of_full_covariances_is_the_trace_of_a_matrix_root():
    mix = gaussian(6, seed=2)
    x, y = gaussian(100) @ mix, gaussian(100, seed=1)
    product = np.linalg.eigvals((torch.cov(x.T) @ torch.cov(y.T)).numpy())
    spread = torch.cov(x.T).trace() + torch.cov(y.T).trace() - 2 * np.sqrt(product.real).sum()
    assert frechet(x, y) == pytest.approx(float((x.mean(0) - y.mean(0)).square().sum() + spread))


def test_frechet_bears_fewer_pictures_than_dimensions():
    assert math.isfinite(frechet(gaussian(5, 40), gaussian(5, 40, seed=1)))


def test_cmmd_of_single_pictures_is_known():
    x, y = torch.tensor([[1.0, 0.0]]).double(), torch.tensor([[0.0, 1.0]]).double()
    assert cmmd(x, y) == pytest.approx(1000 * (2 - 2 * math.exp(-2 / 200)))


def test_cmmd_counts_each_picture_with_itself():
    corners = torch.eye(2).double()
    near = math.exp(-2 / 200)
    assert cmmd(corners, corners[:1]) == pytest.approx(1000 * ((1 + near) / 2 + 1 - (1 + near)))


def test_only_directions_count_except_for_frechet():
    x, y = gaussian(30), gaussian(30, seed=1)
    for measure in (clip_i, clip_t, cmmd):
        assert measure(3 * x, y) == pytest.approx(measure(x, y))
    assert frechet(3 * x, y) != pytest.approx(frechet(x, y))


def test_clip_i_is_the_mean_cosine_over_all_pairs():
    x, y = torch.tensor([[1.0, 0.0], [0.0, 2.0]]).double(), torch.tensor([[3.0, 0.0]]).double()
    assert clip_i(x, y) == pytest.approx(0.5)


def test_clip_t_pairs_each_picture_with_its_own_prompt():
    x = torch.eye(3).double()
    assert clip_t(x, x) == pytest.approx(1)
    assert clip_t(x, x.roll(1, 0)) == pytest.approx(0)


def test_a_floor_hardly_depends_on_the_order_of_the_real_pictures():
    generated, real = gaussian(20), gaussian(40, seed=1)
    figure, other = with_floor(frechet, generated, real), with_floor(frechet, generated, real.flip(0))
    assert figure.floor == pytest.approx(other.floor, rel=0.1)
    assert figure.value == pytest.approx(other.value, rel=0.1)
    assert figure == with_floor(frechet, generated, real)
    assert figure.n == 20


def test_a_floor_is_that_between_any_two_halves_and_not_between_these_two():
    """Real pictures that came in two kinds, one after the other, would look far from themselves."""
    real = torch.cat([gaussian(50) + 3, gaussian(50, seed=1) - 3])
    first_against_last = frechet(real[:50], real[50:])
    assert with_floor(frechet, gaussian(50, seed=2), real).floor < 0.1 * first_against_last


@pytest.mark.parametrize("measure", [cmmd, frechet])
def test_real_pictures_come_out_at_the_floor_and_others_above(measure):
    real = gaussian(400, seed=1) + 1
    same = with_floor(measure, gaussian(200, seed=2) + 1, real)
    other = with_floor(measure, gaussian(200, seed=2) - 1, real)
    assert same.value < 1.5 * same.floor
    assert other.value > 5 * other.floor


@pytest.mark.parametrize("measure", [cmmd, frechet])
def test_floors_fall_as_one_over_n(measure):
    def mean_floor(n: int) -> float:
        floors = [with_floor(measure, gaussian(n, 20), gaussian(2 * n, 20, seed=seed)).floor for seed in range(2)]
        return sum(floors) / len(floors)

    assert mean_floor(20) / mean_floor(100) == pytest.approx(5, rel=0.3)


@pytest.mark.parametrize(("generated", "real"), [(10, 19), (10, 10), (1, 2)])
def test_sizes_that_do_not_fit_are_refused(generated: int, real: int):
    with pytest.raises(ValueError, match="need"):
        with_floor(cmmd, gaussian(generated), gaussian(real))


def test_figures_are_never_listed_without_floor_and_n():
    lines = listing({"CMMD": Figure(0.5, 0.25, 100), "CLIP-T": Figure(0.3, 0.4, 100)}).splitlines()
    assert lines == ["CMMD    0.5000 (floor 0.2500, N = 100)", "CLIP-T  0.3000 (floor 0.4000, N = 100)"]


@pytest.fixture(scope="module")
def ours(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder as the bundled pairs are shipped, with random weights."""
    torch.manual_seed(0)
    tokenizer = train_tokenizer(sample_captions(50))
    folder = tmp_path_factory.mktemp("clip") / "ours"
    save_clip(folder, make_clip(make_text_encoder(tokenizer)), tokenizer)
    return folder


@pytest.fixture(scope="module")
def foreign(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """CLIP ViT-B/32 in miniature, with files as they were first published: old keys, vocabulary and merges apart."""
    torch.manual_seed(0)
    root = tmp_path_factory.mktemp("foreign")
    pipeline, folder = build_tiny_pipeline(root / "pipeline"), root / "clip"
    text = CLIPTextModel.from_pretrained(pipeline / "text_encoder").config.to_dict()
    vision = {"hidden_size": 48, "intermediate_size": 64, "num_hidden_layers": 1, "num_attention_heads": 2}
    vision |= {"image_size": 224, "patch_size": 32}
    text["eos_token_id"] = 2  # as published: the last token is then the one of the highest number
    CLIPModel(CLIPConfig(text_config=text, vision_config=vision, projection_dim=24)).save_pretrained(folder)
    vocabulary = json.loads((pipeline / "tokenizer" / "tokenizer.json").read_text())["model"]
    (folder / "vocab.json").write_text(json.dumps(vocabulary["vocab"]))
    merges = [" ".join(merge) for merge in vocabulary["merges"]]
    (folder / "merges.txt").write_text("\n".join(["#version: 0.2", *merges]) + "\n")
    (folder / "preprocessor_config.json").write_text(json.dumps(PUBLISHED))
    return folder


@pytest.mark.parametrize(("kind", "width"), [("ours", 128), ("foreign", 24)])
def test_any_clip_folder_grades(kind: str, width: int, request: pytest.FixtureRequest):
    grader = ClipGrader.load(request.getfixturevalue(kind))
    generated, real = random_pictures(3, 70), random_pictures(6, 90)
    assert grader.image_features(generated).shape == (3, width)
    figures = grader.grade(generated, ["a red cat"] * 3, real, ["a dog"] * 6)
    assert figures.keys() == {"CLIP-I", "CLIP-T", "CMMD", "Frechet"}
    assert all(math.isfinite(figure.value) and figure.n == 3 for figure in figures.values())


def test_pictures_are_prepared_as_the_folder_says(foreign: Path):
    """Resized to 224 by the shorter edge, cut to the middle, and normalised by the folder's own means."""
    grader = ClipGrader.load(foreign)
    wide = Image.new("RGB", (448, 224), "red")
    wide.paste(Image.new("RGB", (224, 224), "blue"), (112, 0))
    square = Image.new("RGB", (224, 224), "blue")
    torch.testing.assert_close(grader.image_features([wide]), grader.image_features([square]))


def test_transparent_and_grey_pictures_are_read_as_rgb(ours: Path):
    grader = ClipGrader.load(ours)
    features = grader.image_features([Image.new(mode, (64, 64)) for mode in ("RGB", "L", "RGBA")])
    torch.testing.assert_close(features[1:], features[:1].expand(2, -1))


def test_features_do_not_depend_on_company(ours: Path):
    grader, pictures = ClipGrader.load(ours), random_pictures(70, 64)
    together = grader.image_features(pictures)
    torch.testing.assert_close(grader.image_features(pictures[66:68]), together[66:68], atol=1e-5, rtol=1e-4)
    prompts = ["a cat", "a striped red cat wearing a blue hat on the beach at night"]
    torch.testing.assert_close(
        grader.text_features(prompts)[:1], grader.text_features(prompts[:1]), atol=1e-5, rtol=1e-4
    )


def test_a_prompt_beyond_the_text_tower_is_cut_off(ours: Path):
    features = ClipGrader.load(ours).text_features(["cat " * 40, "cat " * 50])
    torch.testing.assert_close(features[0], features[1])


def test_every_picture_needs_its_prompt(ours: Path):
    with pytest.raises(ValueError, match="prompt"):
        ClipGrader.load(ours).grade(random_pictures(2), ["a cat"], random_pictures(4), ["a cat"] * 4)


def test_a_folder_that_brings_no_safetensors_is_refused(foreign: Path, tmp_path: Path):
    folder = shutil.copytree(foreign, tmp_path / "pickled")
    weights = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    torch.save(weights, folder / "pytorch_model.bin")
    with pytest.raises(OSError, match="safetensors"):
        ClipGrader.load(folder)


def test_a_folder_that_lacks_weights_is_refused_and_not_filled_up_at_random(ours: Path, tmp_path: Path):
    folder = shutil.copytree(ours, tmp_path / "partial")
    weights = load_file(folder / "model.safetensors")
    weights.pop("visual_projection.weight")
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(OSError, match="visual_projection"):
        ClipGrader.load(folder)
