"""The CLIP pairs: their loss, what a toy run makes of them, and the folders they are shipped in."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch.nn import functional
from transformers import CLIPModel, CLIPProcessor, CLIPTokenizer

from workers.engine.metrics import ClipGrader
from workers.engine.storybook.clip_networks import load_clip, make_clip, save_clip, text_tower
from workers.engine.storybook.clip_pairs import ClipBatches, render_pairs
from workers.engine.storybook.clip_training import (
    ClipRecord,
    ClipSettings,
    contrastive_loss,
    measure_retrieval,
    train_clip,
)
from workers.engine.storybook.judges import to_tensor
from workers.engine.storybook.networks import make_text_encoder, token_ids
from workers.engine.storybook.questions import stated
from workers.engine.storybook.text_training import sample_captions, train_tokenizer

TOY = ClipSettings(
    minutes=1,
    text_minutes=1,
    steps=8,
    text_steps=8,
    pictures=64,
    captions=200,
    batch=16,
    twins=4,
    groups=2,
    candidates=8,
    split="judge",
)


@pytest.fixture(scope="module")
def tokenizer() -> CLIPTokenizer:
    return train_tokenizer(sample_captions(400))


@pytest.fixture(scope="module")
def trained(tokenizer: CLIPTokenizer) -> tuple[CLIPModel, ClipRecord]:
    return train_clip(tokenizer, TOY)


def test_the_contrast_is_small_only_if_rows_belong_together():
    corners, scale = 5 * torch.eye(4), torch.tensor(20.0)
    assert contrastive_loss(corners, corners, scale) < 1e-3
    assert contrastive_loss(corners, corners.roll(1, 0), scale) > 5


def test_the_contrast_of_equal_features_is_the_logarithm_of_the_batch():
    same = torch.ones(6, 3)
    assert contrastive_loss(same, same, torch.tensor(10.0)) == pytest.approx(math.log(6))


def test_full_captions_come_first_and_state_all_that_the_others_do():
    pairs = render_pairs("train", 40, first=0)
    assert pairs.pixels.shape == (40, 64, 64, 3)
    for full, *partial in pairs.captions:
        for text in partial:
            *said, style, _ = zip(stated(text), stated(full), strict=True)
            assert all(part in (0, whole) for part, whole in said), text
            assert style[0] in (0, style[1] or 1), "a full caption does not call a cartoon a cartoon"


def test_the_same_settings_train_the_same_pair(tokenizer: CLIPTokenizer):
    brief = replace(TOY, steps=1, text_steps=1, pictures=16, captions=32)
    (first, _), (second, _) = (train_clip(tokenizer, brief) for _ in range(2))
    for name, weight in first.state_dict().items():
        assert torch.equal(weight, second.state_dict()[name]), name


def test_twins_show_the_same_content_rougher_and_their_captions_say_so(tokenizer: CLIPTokenizer):
    pairs = render_pairs("judge", 12, first=0)
    batch = ClipBatches(pairs, tokenizer, size=12, twins=4, seed=0).draw()
    fine, rough = batch.pixels[:8], batch.pixels[8:]
    assert torch.equal(batch.shown[8:, :-1], batch.shown[:4, :-1])
    assert batch.shown[:, -1].tolist() == [0] * 8 + [1, 1, 2, 2]
    words = [tokenizer.decode(row, skip_special_tokens=True) for row in batch.ids]
    assert ["blurry" in text or "noisy" in text for text in words] == [False] * 8 + [True] * 4
    edges = [(pixels[..., 1:] - pixels[..., :-1]).abs().mean((1, 2, 3)) for pixels in (fine[:4], rough)]
    assert torch.all(edges[1][:2] < edges[0][:2]), "blur takes edges away"
    assert torch.all(edges[1][2:] > edges[0][2:]), "noise adds some"


def test_without_twins_every_picture_of_a_batch_is_another(tokenizer: CLIPTokenizer):
    pairs = render_pairs("judge", 12, first=0)
    batch = ClipBatches(pairs, tokenizer, size=12, twins=0, seed=0).draw()
    assert batch.pixels.shape == (12, 3, 64, 64)
    assert len(batch.pixels.flatten(1).unique(dim=0)) == 12


def test_splits_share_no_picture():
    ours, theirs = (render_pairs(split, 4, first=0, like="train").pixels for split in ("train", "held-out"))
    assert not any(np.array_equal(a, b) for a in ours for b in theirs)


def test_a_toy_run_counts_what_it_did(trained: tuple[CLIPModel, ClipRecord]):
    _, record = trained
    assert record.steps == 8
    assert record.pairs_seen == 8 * TOY.batch
    assert 0 < record.answers_before <= 1
    assert 0 < record.answers <= 1
    assert record.retrieval.queries == 16


def test_a_pair_fits_a_million_parameters(trained: tuple[CLIPModel, ClipRecord]):
    assert sum(parameter.numel() for parameter in trained[0].parameters()) <= 1_000_000


def test_trained_weights_survive_fp16(trained: tuple[CLIPModel, ClipRecord], tokenizer: CLIPTokenizer, tmp_path: Path):
    clip, _ = trained
    save_clip(tmp_path, clip, tokenizer)
    loaded, _ = load_clip(tmp_path)
    for name, weight in clip.state_dict().items():
        assert torch.equal(loaded.state_dict()[name], weight), name


def test_the_text_tower_of_a_pipeline_is_the_pairs_own(
    trained: tuple[CLIPModel, ClipRecord], tokenizer: CLIPTokenizer, tmp_path: Path
):
    clip, _ = trained
    tower = text_tower(clip)
    tower.save_pretrained(tmp_path / "text_encoder")
    save_clip(tmp_path / "pair", clip, tokenizer)
    loaded = type(tower).from_pretrained(tmp_path / "text_encoder")
    assert loaded.dtype == torch.float32
    ids = token_ids(tokenizer, ["a red cat", "a hat on the moon"])
    with torch.no_grad():
        pooled = loaded(ids).pooler_output
        features = load_clip(tmp_path / "pair")[0].text_projection(pooled)
    expected = ClipGrader.load(tmp_path / "pair").text_features(["a red cat", "a hat on the moon"])
    torch.testing.assert_close(features.double(), expected, atol=1e-4, rtol=1e-4)


def test_a_stock_processor_prepares_what_the_towers_were_trained_on(
    trained: tuple[CLIPModel, ClipRecord], tokenizer: CLIPTokenizer, tmp_path: Path
):
    save_clip(tmp_path, trained[0], tokenizer)
    pixels = np.random.default_rng(0).integers(0, 255, (2, 64, 64, 3)).astype(np.uint8)
    processor = CLIPProcessor.from_pretrained(tmp_path)
    batch = processor(images=[Image.fromarray(one) for one in pixels], text=["a cat"], return_tensors="pt")
    torch.testing.assert_close(batch.pixel_values, to_tensor(pixels), atol=1e-5, rtol=0)
    assert batch.input_ids[0].tolist() == token_ids(tokenizer, ["a cat"])[0, : batch.input_ids.shape[1]].tolist()


def test_no_file_says_where_it_was_made(tokenizer: CLIPTokenizer, tmp_path: Path):
    save_clip(tmp_path / "one", make_clip(make_text_encoder(tokenizer)), tokenizer)
    clip, loaded = load_clip(tmp_path / "one")
    save_clip(tmp_path / "two", clip, loaded)
    for path in (tmp_path / "two").rglob("*.json"):
        assert str(tmp_path) not in path.read_text()


def test_retrieval_by_chance_is_one_in_the_number_of_candidates(tokenizer: CLIPTokenizer):
    torch.manual_seed(0)
    clip = make_clip(make_text_encoder(tokenizer)).eval()
    retrieval = measure_retrieval(clip, tokenizer, replace(TOY, groups=4, candidates=25))
    assert retrieval.picture_for_caption < 0.2
    assert retrieval.caption_for_picture < 0.2


def test_a_pair_starts_from_the_text_tower_it_is_given(tokenizer: CLIPTokenizer):
    torch.manual_seed(0)
    encoder = make_text_encoder(tokenizer).eval()
    ids = token_ids(tokenizer, ["a red cat"])
    with torch.no_grad():
        before, after = encoder(ids), make_clip(encoder).eval().text_model(ids)
    torch.testing.assert_close(after.last_hidden_state, before.last_hidden_state)
    assert functional.cosine_similarity(after.pooler_output, before.pooler_output).item() == pytest.approx(1)
