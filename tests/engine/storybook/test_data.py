"""The rendered cache: resumable, independent of how many processes rendered it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from workers.engine.storybook.batches import Batches
from workers.engine.storybook.data import LATENT, load_set, render_cache, shrink_mask
from workers.engine.storybook.text_training import sample_captions, train_tokenizer

SHARDS = {"studio": 1, "outdoors": 2}


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("cache")
    render_cache(folder, shards=SHARDS, shard_size=6, workers=2)
    return folder


def test_a_second_run_renders_only_what_is_missing(cache: Path, tmp_path: Path):
    assert render_cache(cache, shards=SHARDS, shard_size=6, workers=1) == 0
    assert render_cache(tmp_path, shards={"studio": 1}, shard_size=6, workers=1) == 1
    assert render_cache(tmp_path, shards={"studio": 2}, shard_size=6, workers=1) == 1


def test_shards_do_not_depend_on_who_rendered_them(cache: Path, tmp_path: Path):
    render_cache(tmp_path, shards={"outdoors": 2}, shard_size=6, workers=1)
    for mine, theirs in zip(load_set(tmp_path, "outdoors"), load_set(cache, "outdoors"), strict=True):
        assert np.array_equal(mine.pixels, theirs.pixels)
        assert mine.captions == theirs.captions


def test_pictures_of_different_shards_differ(cache: Path):
    first, second = load_set(cache, "outdoors")
    assert not np.array_equal(first.pixels, second.pixels)


def test_a_set_that_was_never_rendered_says_what_to_do(tmp_path: Path):
    with pytest.raises(FileNotFoundError, match="run the data stage first"):
        load_set(tmp_path, "studio")


def test_masks_are_averaged_onto_the_latent_grid():
    mask = np.zeros((64, 64), np.uint8)
    mask[:4, :2] = 255
    small = shrink_mask(mask)
    assert small.shape == (LATENT, LATENT)
    assert small[0, 0] == 127
    assert small.sum() == 127


def test_batches_have_the_shapes_and_ranges_that_training_expects(cache: Path):
    tokenizer = train_tokenizer(sample_captions(200))
    batches = Batches(cache, tokenizer, size=8, caption_dropout=0.0)
    batch = batches.draw(0.5, torch.Generator().manual_seed(0))
    assert batch.pixels.shape == (8, 3, 64, 64)
    assert -1 <= batch.pixels.min() < 0 < batch.pixels.max() <= 1
    assert batch.masks.shape == (8, 1, LATENT, LATENT)
    assert 0 <= batch.masks.min() < batch.masks.max() <= 1
    assert batch.ids.shape == (8, 32)


def test_caption_dropout_silences_captions(cache: Path):
    tokenizer = train_tokenizer(sample_captions(200))
    silent = Batches(cache, tokenizer, size=8, caption_dropout=1.0).draw(0.5, torch.Generator().manual_seed(0))
    assert (silent.ids[:, 1] == tokenizer.eos_token_id).all()


def test_the_same_generator_draws_the_same_batch(cache: Path):
    batches = Batches(cache, train_tokenizer(sample_captions(200)), size=4, caption_dropout=0.1)
    first, second = (batches.draw(0.3, torch.Generator().manual_seed(4)) for _ in range(2))
    assert torch.equal(first.pixels, second.pixels)
    assert torch.equal(first.ids, second.ids)
