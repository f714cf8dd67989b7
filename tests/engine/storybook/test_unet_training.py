"""The U-Net's trainer: its schedule, its checkpoints, and averaging over processes."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from workers.engine.storybook.data import render_cache
from workers.engine.storybook.networks import (
    load_pipeline,
    make_autoencoder,
    make_text_encoder,
    make_unet,
    save_pipeline,
)
from workers.engine.storybook.text_training import sample_captions, train_tokenizer
from workers.engine.storybook.unet_training import (
    Folders,
    Progress,
    UnetSettings,
    UnetTrainer,
    run_unet_training,
    train_unet,
)

SETTINGS = UnetSettings(minutes=0.01, batch=2, average_every=2)


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Folders:
    """A rendered cache and a fresh miniature pipeline."""
    root = tmp_path_factory.mktemp("unet")
    render_cache(root / "data", shards={"studio": 1, "outdoors": 1}, shard_size=6, workers=1)
    tokenizer = train_tokenizer(sample_captions(200))
    save_pipeline(
        root / "out",
        autoencoder=make_autoencoder(8),
        text_encoder=make_text_encoder(tokenizer),
        tokenizer=tokenizer,
        unet=make_unet((32, 32, 32)),
    )
    return Folders(data=root / "data", work=root / "work", out=root / "out")


def fresh(folders: Folders, tmp_path: Path) -> Folders:
    """The same data and start, with a work folder and an output of one's own."""
    return Folders(data=folders.data, work=tmp_path / "work", out=tmp_path / "out")


def trainer_at(folders: Folders, settings: UnetSettings, progress: Progress) -> UnetTrainer:
    trainer = UnetTrainer(load_pipeline(folders.out), settings, folders)
    trainer.progress = progress
    return trainer


@pytest.mark.parametrize(
    ("steps", "share_spent", "share_of_rate"),
    [(0, 0.0, 0.01), (49, 0.0, 0.5), (500, 0.5, 1.0), (500, 0.75, 1.0), (500, 0.9, 0.4), (500, 1.0, 0.0)],
)
def test_the_learning_rate_warms_up_holds_and_falls(
    folders: Folders, steps: int, share_spent: float, share_of_rate: float
):
    settings = UnetSettings(minutes=10, learning_rate=1.0, warmup_steps=100, decay_share=0.25)
    trainer = trainer_at(folders, settings, Progress(steps=steps, seconds=600 * share_spent))
    trainer.set_learning_rate()
    assert trainer.optimiser.rates() == pytest.approx([share_of_rate] * 2)


def test_a_run_begins_in_the_studio_if_told_to(folders: Folders):
    settings = UnetSettings(minutes=10, studio_share=0.3, studio_only_share=0.1)
    shares = [trainer_at(folders, settings, Progress(seconds=s)).studio_share() for s in (0, 59, 61)]
    assert shares == [1.0, 1.0, 0.3]


def test_the_fast_way_learns_in_short_floats_and_keeps_its_weights_in_long_ones(folders: Folders, tmp_path: Path):
    mine = fresh(folders, tmp_path)
    with torch.compiler.set_stance("force_eager"):  # compiling takes minutes and changes no rule
        train_unet(load_pipeline(folders.out), mine, replace(SETTINGS, fast=True))
    state = torch.load(mine.work / "checkpoint.pt", weights_only=True)
    assert {tensor.dtype for tensor in state["parameters"]} == {torch.float32}
    before = load_pipeline(folders.out).unet.conv_in.weight
    assert not torch.equal(state["parameters"][0], before)


def test_training_moves_the_unet_and_nothing_else(folders: Folders, tmp_path: Path):
    mine = fresh(folders, tmp_path)
    before = load_pipeline(folders.out)
    progress = train_unet(load_pipeline(folders.out), mine, SETTINGS)
    after = load_pipeline(mine.out)
    assert progress.samples == progress.steps * SETTINGS.batch > 0
    for name, same in (("vae", True), ("text_encoder", True), ("unet", False)):
        old, new = (getattr(p, name).state_dict() for p in (before, after))
        assert all(torch.equal(old[key], new[key]) for key in old) == same


def test_a_run_goes_on_exactly_where_its_checkpoint_left_off(folders: Folders, tmp_path: Path):
    mine = fresh(folders, tmp_path)
    first = UnetTrainer(load_pipeline(folders.out), SETTINGS, mine)
    with torch.no_grad():
        first.parameters[0].add_(1.0)
    first.synchronise()
    first.progress = Progress(steps=8, samples=16, seconds=0.3, losses=[0.5])
    first.save()
    second = UnetTrainer(load_pipeline(folders.out), SETTINGS, mine)
    second.resume()
    assert second.progress == first.progress
    for name in ("parameters", "ema"):
        for mine_, theirs in zip(getattr(first, name), getattr(second, name), strict=True):
            assert torch.equal(mine_, theirs)


def test_a_run_whose_time_is_used_up_makes_no_further_step(folders: Folders, tmp_path: Path):
    mine = fresh(folders, tmp_path)
    first = train_unet(load_pipeline(folders.out), mine, SETTINGS)
    again = train_unet(load_pipeline(folders.out), mine, SETTINGS)
    assert again.steps == first.steps
    longer = train_unet(load_pipeline(folders.out), mine, replace(SETTINGS, minutes=2 * SETTINGS.minutes))
    assert longer.steps > first.steps


def test_the_exported_weights_are_the_moving_average(folders: Folders, tmp_path: Path):
    mine = fresh(folders, tmp_path)
    trainer = UnetTrainer(load_pipeline(folders.out), SETTINGS, mine)
    with torch.no_grad():
        for parameter in trainer.parameters:
            parameter.add_(1.0)
    trainer.save()
    exported = list(load_pipeline(mine.out).unet.parameters())
    for average, parameter in zip(trainer.ema, exported, strict=True):
        torch.testing.assert_close(parameter, average, atol=2e-3, rtol=2e-3)
    assert not torch.allclose(trainer.parameters[0], trainer.ema[0])


def test_processes_share_one_set_of_weights(folders: Folders, tmp_path: Path):
    mine = fresh(folders, tmp_path)
    run_unet_training(folders.out, mine, SETTINGS, ranks=2)
    record = json.loads((mine.work / "record.json").read_text())
    assert record["processes"] == 2
    assert record["progress"]["samples"] == 2 * record["progress"]["steps"] * SETTINGS.batch
    assert load_pipeline(mine.out).unet.config.sample_size == 16
