"""Students of the bundled model: made in order, taken up where they were stopped, and never from another's pairs."""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest
import torch

from tests.engine.conftest import load
from workers.engine.base_model import BaseModel
from workers.engine.dmd.config import DistillationConfig
from workers.engine.dmd.networks import weights_digest
from workers.engine.dmd.teacher_pairs import PairPlan
from workers.engine.errors import TeacherPairsInvalid
from workers.engine.storybook.distilling import RECIPES, STUDENT, Recipe, begin, make_students, toy
from workers.engine.storybook.student_material import Material, Workplace, draw_pairs, own_prompts, real_pictures

MATERIAL = Material(("a red cat", "the dog"), pairs=4, shards=2, teacher_steps=2, guidance=3.0)
CONFIG = DistillationConfig(
    steps=3, batch_size=2, critic_ratio=1, lr=1e-3, report_every=1, preview_every=2, checkpoint_every=1
)
TWO = {
    "first": Recipe(replace(CONFIG, matching_weight=0.0)),
    "second": Recipe(replace(CONFIG, key_locked=False), after="first"),
}


@dataclass(frozen=True)
class Impatient(Workplace):
    """A workplace whose time is up when it was asked so many times."""

    patience: int = 0
    asked: list[None] = field(default_factory=list)

    def is_over(self) -> bool:
        self.asked.append(None)
        return len(self.asked) > self.patience


@pytest.fixture(scope="module")
def made(tiny_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Workplace:
    """Both students, made without a break."""
    place = Workplace(tiny_folder, tmp_path_factory.mktemp("made"))
    assert make_students(place, MATERIAL, TWO) == []
    return place


def digest(place: Workplace, name: str) -> str:
    return weights_digest(load(place.student(name)).denoiser.unet)


def test_a_finished_student_is_a_model_folder_that_says_how_it_came_about(made: Workplace, tiny: BaseModel):
    student = load(made.student("second"))
    assert student.student is not None
    assert (student.student.teacher, student.student.key_locked, student.student.steps) == ("tiny", False, 3)
    assert not torch.equal(student.projections.keys, tiny.projections.keys)
    record = json.loads((made.student("second") / "record.json").read_text())
    assert (record["after"], record["samples"], record["pairs"]) == ("first", 6, 4)
    assert record["settings"]["key_locked"] is False
    assert [report["step"] for report in record["signals"]] == [1, 2, 3]
    assert record["seconds"] > 0
    assert record["seconds for pairs"] >= 0


def test_a_student_starts_where_the_one_before_it_ended_and_its_fake_score_where_the_teacher_is(
    made: Workplace, tiny: BaseModel
):
    trainer = begin(made, MATERIAL, TWO["second"]).trainer
    for network in (trainer.student, trainer.averaged):
        assert weights_digest(network.unet) == digest(made, "first")
    assert weights_digest(trainer.fake.unet) == weights_digest(tiny.denoiser.unet) != digest(made, "first")


@pytest.mark.parametrize("patience", [0, 3, 9])
def test_students_that_were_stopped_anywhere_end_as_if_they_had_not_been(
    made: Workplace, tiny_folder: Path, tmp_path: Path, patience: int
):
    left = make_students(Impatient(tiny_folder, tmp_path, patience=patience), MATERIAL, TWO)
    assert left
    assert make_students(Workplace(tiny_folder, tmp_path), MATERIAL, TWO) == []
    for name in TWO:
        assert digest(made, name) == digest(Workplace(tiny_folder, tmp_path), name)
    record = json.loads((tmp_path / "students" / "second" / "record.json").read_text())
    assert [report["step"] for report in record["signals"]] == [1, 2, 3]
    assert not any((tmp_path / "runs").iterdir())


def test_what_is_finished_is_not_made_again(made: Workplace):
    before = {path: path.stat().st_mtime_ns for path in made.work.rglob("*.safetensors")}
    assert make_students(made, MATERIAL, TWO) == []
    assert before == {path: path.stat().st_mtime_ns for path in made.work.rglob("*.safetensors")}


def test_other_processes_make_the_same_students(made: Workplace, tiny_folder: Path, tmp_path: Path):
    place = Workplace(tiny_folder, tmp_path, workers=2)
    shutil.copytree(made.pairs, place.pairs)
    PairPlan.load(place.pairs).path(place.pairs, 1).unlink()
    assert make_students(place, MATERIAL, {"first": TWO["first"]}) == []
    assert digest(place, "first") == digest(made, "first")


def test_pairs_of_other_prompts_are_refused(made: Workplace):
    with pytest.raises(TeacherPairsInvalid, match="other pairs"):
        draw_pairs(made, replace(MATERIAL, prompts=("a hat",)))
    assert PairPlan.load(made.pairs).prompts == MATERIAL.prompts * 2


def test_a_model_keeps_the_prompts_that_it_was_given(tmp_path: Path):
    first = own_prompts(tmp_path, 20)
    assert len(set(first)) == len(first) > 10
    assert own_prompts(tmp_path, 5) == first
    assert (tmp_path / "prompts.txt").read_text().splitlines() == list(first)


def test_renders_for_a_discriminator_come_with_captions_of_the_training_world(storybook: BaseModel):
    real = real_pictures(storybook, 3)
    assert real.latents.shape == (3, *storybook.latent_shape(64, 64))
    assert len(set(real.prompts)) == 3
    assert real.digest == real_pictures(storybook, 3).digest


def test_every_student_that_shows_what_a_part_is_for_differs_from_the_whole_in_that_part_alone():
    whole = RECIPES["full"]
    parts: dict[str, dict[str, object]] = {
        "no-regression": {"regression_weight": 0.0},
        "no-matching": {"matching_weight": 0.0},
        "one-to-one": {"regression_weight": 0.0, "critic_ratio": 1},
    }
    for name, part in parts.items():
        assert RECIPES[name] == replace(whole, config=whole.config.override(part))


def test_prompts_of_several_things_are_matched_as_often_as_a_recipe_says(made: Workplace):
    material = replace(MATERIAL, prompts=("a red cat", "a cat and a dog", "a hat next to a mug", "a dog wearing a hat"))
    assert material.crowded == material.prompts[1:3]
    recipe = Recipe(replace(CONFIG, regression_weight=0.0), crowded=3)
    assert len(begin(made, material, recipe).trainer.material.contexts) == 4 + 2 * 2
    assert len(begin(made, material, replace(recipe, crowded=1)).trainer.material.contexts) == 4


def test_a_toy_keeps_what_is_learned_and_from_whom():
    toys = toy(RECIPES)
    assert list(toys) == list(RECIPES)
    for name, recipe in RECIPES.items():
        assert (toys[name].after, toys[name].config.key_locked) == (recipe.after, recipe.config.key_locked)
        assert toys[name].config.regression_weight == recipe.config.regression_weight
        assert toys[name].config.steps <= 2
    assert RECIPES[STUDENT].config.key_locked
