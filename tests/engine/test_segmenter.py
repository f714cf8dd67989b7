"""Masks from a CLIPSeg folder: a random one in miniature, read and asked as any other."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from PIL import Image
from torch.nn import functional
from transformers import CLIPSegConfig, CLIPSegForImageSegmentation, CLIPTokenizer, ViTImageProcessorPil

from tests.engine.conftest import BUNDLED_CLIP, load, random_pictures
from tests.engine.test_training import Events
from workers.engine.base_model import BaseModel
from workers.engine.errors import ModelUnreadable
from workers.engine.perfusion.segmenter import Segmenter
from workers.engine.perfusion.training_pictures import prepare_pictures
from workers.engine.pictures import to_pictures, to_pixels

TEXTS = ("a cat", "the photo of a cat")


@pytest.fixture(scope="module")
def folder(tiny_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A CLIPSeg of 32x32 pixels in 4 patches, with random weights and the miniature pipeline's words."""
    place = tmp_path_factory.mktemp("clipseg")
    tokenizer = CLIPTokenizer.from_pretrained(tiny_folder / "tokenizer")
    tower = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
    ends = {"bos_token_id": tokenizer.bos_token_id, "eos_token_id": tokenizer.eos_token_id}
    config = CLIPSegConfig(
        text_config=tower | ends | {"vocab_size": len(tokenizer), "max_position_embeddings": 24},
        vision_config=tower | {"image_size": 32, "patch_size": 16},
        projection_dim=16,
        extract_layers=[0, 1],
        reduce_dim=8,
        decoder_num_attention_heads=2,
        decoder_intermediate_size=16,
        initializer_factor=10.0,
    )
    torch.manual_seed(0)
    CLIPSegForImageSegmentation(config).save_pretrained(place)
    tokenizer.save_pretrained(place)
    ViTImageProcessorPil(size={"height": 32, "width": 32}).save_pretrained(place)
    return place


@pytest.fixture(scope="module")
def segmenter(folder: Path) -> Segmenter:
    return Segmenter.load(str(folder), device=torch.device("cpu"))


def test_a_mask_is_the_mean_likelihood_over_the_texts_divided_by_its_maximum(segmenter: Segmenter, folder: Path):
    pictures = random_pictures(2, 32)
    model = CLIPSegForImageSegmentation.from_pretrained(folder).eval()
    tokenizer, processor = CLIPTokenizer.from_pretrained(folder), ViTImageProcessorPil.from_pretrained(folder)
    for picture, mask in zip(pictures, segmenter.masks(pictures, TEXTS, (32, 32)), strict=True):
        pixels = processor(images=[picture], return_tensors="pt").pixel_values
        with torch.no_grad():
            each = [
                model(**tokenizer(text, return_tensors="pt"), pixel_values=pixels).logits.sigmoid().reshape(32, 32)
                for text in TEXTS
            ]
        mean = torch.stack(each).mean(0)
        assert float(mean.std()) > 0
        torch.testing.assert_close(mask[0], mean / mean.max(), rtol=1e-4, atol=1e-5)


def test_masks_come_in_the_size_of_the_latents(segmenter: Segmenter):
    pictures = random_pictures(3, 32)
    full, small = segmenter.masks(pictures, TEXTS, (32, 32)), segmenter.masks(pictures, TEXTS, (8, 8))
    assert small.shape == (3, 1, 8, 8)
    torch.testing.assert_close(small, functional.interpolate(full, size=(8, 8), mode="bilinear", align_corners=False))


def test_they_depend_on_the_text_and_on_the_picture_alone(segmenter: Segmenter):
    one, other = random_pictures(2, 32)
    both, alone = segmenter.masks([one, other], TEXTS, (8, 8)), segmenter.masks([one], TEXTS, (8, 8))
    torch.testing.assert_close(both[:1], alone, rtol=1e-4, atol=1e-5)
    assert not torch.allclose(both[0], both[1])
    assert not torch.allclose(segmenter.masks([one], ["the red dog"], (8, 8)), alone)


def test_a_training_takes_them_in_place_of_the_models_own_and_mirrors_them(tiny: BaseModel, segmenter: Segmenter):
    wide = [Image.new("RGB", (40, 20), "gray"), *random_pictures(1)]
    squares = to_pictures(to_pixels(wide, tiny.native_size))
    expected = segmenter.masks(squares, [text.format("cat") for text in tiny.perfusion.templates], (8, 8))
    prepared = prepare_pictures(tiny, wide, "cat", tiny.perfusion, seed=0, segmenter=segmenter)
    assert torch.equal(prepared.masks, torch.cat([expected, expected.flip(-1)]))


def test_masks_that_are_given_and_trainings_without_any_leave_it_out(tiny: BaseModel, segmenter: Segmenter):
    pictures, config, given = random_pictures(1), tiny.perfusion, torch.rand(1, 1, 8, 8)
    told = prepare_pictures(tiny, pictures, "cat", config, seed=0, masks=given, segmenter=segmenter)
    assert torch.equal(told.masks[:1], given)
    bare = prepare_pictures(tiny, pictures, "cat", replace(config, masked=False), seed=0, segmenter=segmenter)
    assert bool((bare.masks == 1).all())


def test_a_card_names_the_segmenter_relative_to_its_folder(tiny_folder: Path, folder: Path, tmp_path: Path):
    place = shutil.copytree(tiny_folder, tmp_path / "model")
    shutil.copytree(folder, tmp_path / "clipseg")
    card = json.loads((place / "lockstep.json").read_text())

    def named(said: object) -> str | None:
        (place / "lockstep.json").write_text(json.dumps(card | {"segmenter": said}))
        return load(place).segmenter

    assert (named(None), named("CIDAS/clipseg")) == (None, "CIDAS/clipseg")
    with pytest.raises(ModelUnreadable, match="segmenter"):
        named(3)
    assert named("../clipseg") == str(place / "../clipseg")
    masked, plain = Events().train(load(place), tmp_path), Events().train(load(tiny_folder), tmp_path)
    assert not torch.equal(masked.concept.value_outputs, plain.concept.value_outputs)


@pytest.mark.parametrize("place", ["/no/such/folder", str(BUNDLED_CLIP)])
def test_what_is_no_clipseg_is_told(tiny: BaseModel, tmp_path: Path, place: str):
    with pytest.raises(ModelUnreadable, match=r"neither|missing"):
        Events().train(replace(tiny, segmenter=place), tmp_path)
