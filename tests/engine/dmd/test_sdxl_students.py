"""Students of SDXL-shaped models: from pairs to a student that draws, concepts included."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from tests.engine.concepts import random_concept
from tests.engine.conftest import load
from tests.engine.dmd.pairs import draw_some_pairs
from workers.engine.base_model import BaseModel
from workers.engine.conditioning import ConceptUse, Prompt
from workers.engine.dmd.distillation import Distillation, RealPictures, Student, distill
from workers.engine.dmd.material import PromptContexts
from workers.engine.dmd.student_file import load_student, save_student
from workers.engine.dmd.student_model import export_student
from workers.engine.dmd.teacher_pairs import TeacherPairs
from workers.engine.generation import GenerationRequest, generate
from workers.engine.sampling import initial_noise, sample_ddim

PROMPTS = ("a red cat", "the dog")
REAL = RealPictures(torch.randn((2, 4, 8, 8), generator=torch.Generator().manual_seed(0)), ("a cat", "a dog"))
SETTINGS = {"steps": 2, "batch_size": 2, "critic_ratio": 1, "lr": 1e-3, "gan_weight": 1e-3, "match_pairs": True}


@pytest.fixture(scope="module")
def pairs(tiny_xl: BaseModel, tmp_path_factory: pytest.TempPathFactory) -> TeacherPairs:
    folder = tmp_path_factory.mktemp("pairs")
    draw_some_pairs(tiny_xl, PROMPTS, folder, count=2, seed=5)
    return TeacherPairs.load(tiny_xl, folder)


@pytest.fixture(scope="module")
def student(tiny_xl: BaseModel, pairs: TeacherPairs, tmp_path_factory: pytest.TempPathFactory) -> Student:
    config = tiny_xl.distillation.override(SETTINGS)
    return distill(
        Distillation(tiny_xl, PROMPTS, config, seed=0, pairs=pairs, real=REAL),
        tmp_path_factory.mktemp("distillation"),
        on_progress=lambda *_: None,
        on_preview=lambda *_: None,
        on_checkpoint=lambda *_: None,
        should_stop=lambda: False,
    )


def pixels(base: BaseModel, *uses: ConceptUse) -> np.ndarray:
    prompt = "a red <tom>" if uses else "a red cat"
    request = GenerationRequest(prompt, seed=3, steps=1, guidance=1.0, width=32, height=16, concepts=uses)
    (picture,) = generate(base, [request], batch_size=8, on_progress=lambda *_: None, should_stop=lambda: False)
    return np.asarray(picture).astype(int)


def test_the_teachers_pairs_are_pushed_away_from_a_prompt_that_says_nothing(
    tiny_xl: BaseModel, pairs: TeacherPairs
) -> None:
    blank = PromptContexts(tiny_xl.text, [""], size=16).take(torch.tensor([0]))
    assert blank.added is not None
    assert not blank.encodings.any()
    assert not blank.added.pooled.any()
    assert blank.added.time_ids.tolist() == [[16, 16, 0, 0, 16, 16]]
    expected = sample_ddim(
        tiny_xl.denoiser,
        initial_noise([5], (4, 8, 8)),
        tiny_xl.conditioner.condition([Prompt(PROMPTS[0])]),
        tiny_xl.conditioner.condition([Prompt("")]),
        steps=2,
        guidance=[3.0],
        on_step=lambda: None,
        should_stop=lambda: False,
    )
    torch.testing.assert_close(pairs.latents[:1], expected, atol=1e-4, rtol=1e-4)


def test_a_student_learns_at_the_shifted_timestep_and_leaves_the_keys_alone(
    tiny_xl: BaseModel, student: Student
) -> None:
    assert student.facts.timesteps == (399,)
    learned, own = dict(student.unet.named_parameters()), dict(tiny_xl.denoiser.unet.named_parameters())
    same = {name for name, parameter in own.items() if torch.equal(parameter, learned[name])}
    assert {f"{layer}.to_{side}.weight" for layer in tiny_xl.projections.names for side in "kv"} == same


def test_a_student_draws_alike_from_its_file_and_its_folder_with_its_teachers_concepts(
    tiny_xl: BaseModel, tiny_xl_folder: Path, student: Student, tmp_path: Path
) -> None:
    save_student(tmp_path / "student", student.unet, student.facts, tiny_xl)
    folder = tmp_path / "folder"
    export_student(
        student.unet, student.facts, name="quick", teacher=tiny_xl_folder, folder=folder, dtype=torch.float16
    )
    filed, foldered = load_student(tmp_path / "student", tiny_xl), load(folder)
    assert filed.fingerprint == foldered.fingerprint == tiny_xl.fingerprint
    tom = ConceptUse("tom", random_concept(tiny_xl, 1), gate_bias=0.5, gate_temperature=0.15)
    for uses in ((), (tom,)):
        assert np.abs(pixels(filed, *uses) - pixels(foldered, *uses)).max() <= 1
    assert np.abs(pixels(filed, tom) - pixels(filed)).max() > 1
