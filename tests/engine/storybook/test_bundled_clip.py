"""The two CLIP pairs in `models/`: small, stock to load, one of them conditioning the pipeline and the other not."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from PIL import Image
from transformers import CLIPModel, CLIPTextModel, CLIPTokenizer

from workers.engine.metrics import ClipGrader
from workers.engine.storybook.clip_networks import load_clip
from workers.engine.storybook.clip_pairs import render_pairs
from workers.engine.storybook.clip_training import ClipSettings, measure_retrieval
from workers.engine.storybook.identity import COLOUR_NAMES, KINDS, Split

MODELS = Path(__file__).parents[3] / "models"
PIPELINE, CONDITIONING, GRADING = MODELS / "storybook", MODELS / "storybook-clip", MODELS / "storybook-grader"
BOTH = pytest.mark.parametrize("folder", [CONDITIONING, GRADING], ids=["conditioning", "grading"])


@BOTH
def test_a_pair_is_small(folder: Path):
    assert sum(path.stat().st_size for path in folder.iterdir()) < 2_100_000
    assert sum(weight.numel() for weight in CLIPModel.from_pretrained(folder).parameters()) <= 1_000_000


def test_the_pipelines_text_tower_is_the_conditioning_pairs():
    """The pair's weights are stored in fp16 and the tower's in fp32, and yet none differs."""
    tower = CLIPTextModel.from_pretrained(PIPELINE / "text_encoder").state_dict()
    pair = load_clip(CONDITIONING)[0].text_model.state_dict()
    assert tower.keys() == pair.keys()
    assert all(torch.equal(tower[name], pair[name]) for name in tower)


def test_the_pipeline_reads_words_as_its_pair_does():
    words = " ".join([*KINDS, *COLOUR_NAMES, "sitting photo zürich"])
    tokenizers = [CLIPTokenizer.from_pretrained(folder) for folder in (PIPELINE / "tokenizer", CONDITIONING)]
    assert len({tuple(tokenizer(words).input_ids) for tokenizer in tokenizers}) == 1


@pytest.mark.parametrize("folder", [CONDITIONING, GRADING])
def test_every_word_of_the_world_is_one_token(folder: Path):
    tokenizer = CLIPTokenizer.from_pretrained(folder)
    assert all(len(tokenizer.tokenize(word)) == 1 for word in (*KINDS, *COLOUR_NAMES))


def test_the_grading_pair_is_not_the_conditioning_pair():
    prompts = ["a red cat", "a striped blue dog on the beach", "a green hat in space"]
    features = [ClipGrader.load(folder).text_features(prompts) for folder in (CONDITIONING, GRADING)]
    own = [rows @ rows.T for rows in features]
    assert not torch.allclose(own[0], own[1], rtol=0.05)


@pytest.mark.parametrize(("folder", "split"), [(CONDITIONING, "train"), (GRADING, "judge")])
def test_captions_and_pictures_find_each_other_among_a_hundred(folder: Path, split: Split):
    settings = ClipSettings(minutes=1, text_minutes=1, split=split, groups=2)
    retrieval = measure_retrieval(*load_clip(folder), settings)
    assert retrieval.picture_for_caption > 0.65
    assert retrieval.caption_for_picture > 0.65


def test_blobs_are_graded_worse_than_renders():
    """Other renders come out near the floor; the same ones, smoothed until things are blobs, do not."""
    pairs = render_pairs("held-out", 300, first=0)
    pictures = [Image.fromarray(pixels) for pixels in pairs.pixels]
    prompts = [full for full, *_ in pairs.captions]
    blobs = [picture.resize((4, 4), Image.Resampling.BOX).resize((64, 64)) for picture in pictures[:100]]
    grader = ClipGrader.load(GRADING)
    good, bad = (grader.grade(some, prompts[:100], pictures[100:], prompts[100:]) for some in (pictures[:100], blobs))
    for name in ("CMMD", "Frechet"):
        assert good[name].value < 2 * good[name].floor
        assert bad[name].value > 1.4 * good[name].value
    assert good["CLIP-T"].value == pytest.approx(good["CLIP-T"].floor, rel=0.1)
    assert bad["CLIP-T"].value < 0.9 * good["CLIP-T"].value
