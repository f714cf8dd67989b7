"""The distillation script for a GPU, tried out on the CPU: what it brings back is enough to go on elsewhere."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from tests.benchmarks.gpu.distillation import (
    FILES,
    GPU_RECIPES,
    PART_BYTES,
    bring_back,
    main,
    parts,
    take_up,
)
from tests.engine.tiny import build_tiny_pipeline
from workers.engine.base_model import BaseModel
from workers.engine.dmd.config import DistillationConfig
from workers.engine.dmd.networks import weights_digest
from workers.engine.storybook.distilling import Journal, Recipe, begin, make_students
from workers.engine.storybook.student_material import Material, Workplace, draw_pairs
from workers.engine.tensor_file import read_tensors

MATERIAL = Material(("a red cat", "the dog"), pairs=2, shards=1, teacher_steps=2, guidance=3.0)
CONFIG = DistillationConfig(steps=3, batch_size=2, critic_ratio=1, lr=1e-3, report_every=1)
RECIPES = {"first": Recipe(replace(CONFIG, matching_weight=0.0)), "second": Recipe(CONFIG, after="first")}


@pytest.fixture(scope="module")
def teacher(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = build_tiny_pipeline(tmp_path_factory.mktemp("models") / "storybook")
    (folder / "prompts.txt").write_text("\n".join(MATERIAL.prompts))
    return folder


def digest(place: Workplace, name: str) -> str:
    return weights_digest(place.load(place.student(name)).denoiser.unet)


def test_finished_students_come_back_in_a_file_each_and_are_folders_again_elsewhere(teacher: Path, tmp_path: Path):
    here, there = Workplace(teacher, tmp_path / "here"), Workplace(teacher, tmp_path / "there")
    assert make_students(here, MATERIAL, RECIPES) == []
    bring_back(here, tmp_path / "out", RECIPES)
    names = sorted(path.name for path in (tmp_path / "out").iterdir())
    assert names == ["first.safetensors", "machine.json", "second.safetensors"]
    take_up(there, tmp_path / "out")
    for name in RECIPES:
        assert digest(there, name) == digest(here, name)
        assert BaseModel.load(there.student(name), device=torch.device("cpu"), dtype=torch.float32).student is not None
        told = [(place.student(name) / "record.json").read_text() for place in (here, there)]
        assert told[0] == told[1]
    bring_back(here, tmp_path / "again", RECIPES)
    assert [path.name for path in (tmp_path / "again").iterdir()] == ["machine.json"]


def test_an_unfinished_student_goes_on_elsewhere_at_its_step(teacher: Path, tmp_path: Path):
    here, there = Workplace(teacher, tmp_path / "here"), Workplace(teacher, tmp_path / "there")
    draw_pairs(here, MATERIAL)
    work, run = begin(here, MATERIAL, RECIPES["first"]), here.run("first")
    run.mkdir(parents=True)
    work.trainer.step()
    work.trainer.step()
    Journal.of(run).save(work.save_checkpoint(run))
    bring_back(here, tmp_path / "out", RECIPES)
    take_up(there, tmp_path / "out")
    tensors, _ = read_tensors(there.run("first") / "checkpoint-000002.safetensors")
    assert not any("exp_avg" in name for name in tensors)
    for name, parameter in work.trainer.averaged.named_parameters():
        if f"average/{name}" in tensors:
            assert torch.equal(tensors[f"average/{name}"], parameter.half())
    assert make_students(there, MATERIAL, {"first": RECIPES["first"]}) == []
    assert digest(there, "first") != weights_digest(there.load(teacher).denoiser.unet)


def test_parts_keep_to_their_size_and_lose_nothing():
    tensors = {str(k): torch.full((k,), float(k)) for k in range(1, 20)}
    cut = list(parts(tensors, 100))
    assert all(sum(tensor.nbytes for tensor in part.values()) <= 100 for part in cut)
    assert [name for part in cut for name in part] == list(tensors)


def test_what_the_bundled_model_needs_in_progress_fits_into_one_call():
    half_precision, networks, weights = 2, 3, 7.6e6  # student, average and fake score
    assert networks * weights * half_precision / PART_BYTES + 2 <= FILES
    assert weights * half_precision < 16 * 2**20


def test_every_student_starts_from_one_that_is_made_before_it():
    names = list(GPU_RECIPES)
    for name, recipe in GPU_RECIPES.items():
        assert recipe.after is None or names.index(recipe.after) < names.index(name)


def test_a_call_without_time_brings_back_where_it_was(
    teacher: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    places = ["--models", str(teacher.parent), "--work", str(tmp_path / "work"), "--out", str(tmp_path / "out")]
    main([*places, "--device", "cpu", "--quick", "--minutes", "0", "--only", "gan"])
    assert "to be continued with: regression, student, gan" in capsys.readouterr().out
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["machine.json"]
