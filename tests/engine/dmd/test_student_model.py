"""A student as a model: what its folder says, and how it answers requests."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from tests.engine.concepts import random_concept
from tests.engine.conftest import load
from workers.engine.base_model import BaseModel
from workers.engine.conditioning import ConceptUse, Prompt
from workers.engine.dmd.student import draw, seeded_noises
from workers.engine.dmd.student_model import StudentFacts, export_student, link_to_teacher
from workers.engine.errors import EngineError, Interrupted, ModelUnreadable
from workers.engine.generation import GenerationRequest, generate
from workers.engine.pictures import to_pictures

FACTS = StudentFacts("tiny", (999, 499), guidance=3.0, key_locked=True, steps=10)
REQUEST = GenerationRequest("a red cat", seed=5, steps=2, guidance=1.0, width=16, height=16)


@pytest.fixture(scope="module")
def student_folder(tiny: BaseModel, tiny_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The miniature model's own weights, said to be a student of two steps."""
    folder = tmp_path_factory.mktemp("students") / "student"
    unet = tiny.denoiser.unet
    export_student(unet, FACTS, name="tiny-in-two", teacher=tiny_folder, folder=folder, dtype=torch.float16)
    return folder


@pytest.fixture(scope="module")
def student(student_folder: Path) -> BaseModel:
    return load(student_folder)


def answer(base: BaseModel, request: GenerationRequest) -> Image.Image | EngineError:
    (given,) = generate(base, [request], batch_size=8, on_progress=lambda *_: None, should_stop=lambda: False)
    return given


def test_a_model_knows_whether_it_is_a_student(tiny: BaseModel, student: BaseModel) -> None:
    assert tiny.student is None
    assert student.student == FACTS


def test_a_student_keeps_of_its_teachers_card_all_but_what_is_for_trainings(
    tiny: BaseModel, tiny_folder: Path, tmp_path: Path
) -> None:
    teacher = shutil.copytree(tiny_folder, tmp_path / "teacher")
    card = json.loads((teacher / "lockstep.json").read_text()) | {"size": 16}
    told = {"validation": {"clip": "../clip"}, "preview": {"student": "../two"}, "segmenter": "../clipseg"}
    (teacher / "lockstep.json").write_text(json.dumps(card | told))
    folder = tmp_path / "student"
    export_student(tiny.denoiser.unet, FACTS, name="two", teacher=teacher, folder=folder, dtype=torch.float32)
    kept = json.loads((folder / "lockstep.json").read_text())
    assert kept.keys() == {*card, "student"}
    assert kept["size"] == 16


@pytest.mark.parametrize(
    "said",
    [
        "yes",
        {},
        {"teacher": "tiny", "timesteps": [], "guidance": 3.0, "key_locked": True, "steps": 1},
        {"teacher": "tiny", "timesteps": ["999"], "guidance": 3.0, "key_locked": True, "steps": 1},
    ],
)
def test_a_card_that_tells_a_student_wrongly_is_refused(said: object) -> None:
    with pytest.raises(ModelUnreadable, match="what kind of student"):
        StudentFacts.of({"student": said})


def test_weights_in_half_precision_take_half_the_room(student_folder: Path, tiny_folder: Path) -> None:
    weights = "unet/diffusion_pytorch_model.safetensors"
    ratio = (student_folder / weights).stat().st_size / (tiny_folder / weights).stat().st_size
    assert 0.4 < ratio < 0.6
    assert json.loads((student_folder / "model_index.json").read_text())["_class_name"] == "StableDiffusionPipeline"


def test_beside_its_teacher_a_student_needs_no_copies(
    student_folder: Path, tiny_folder: Path, student: BaseModel, tmp_path: Path
) -> None:
    own = Path(shutil.copytree(student_folder, tmp_path / "student"))
    link_to_teacher(own, Path(shutil.copytree(tiny_folder, tmp_path / "teacher")))
    assert [path.parent.name for path in own.rglob("*.safetensors") if not path.is_symlink()] == ["unet"]
    moved = Path((tmp_path).rename(tmp_path.with_name("elsewhere")))  # both of them
    linked = load(moved / "student")
    assert (linked.fingerprint, linked.weights) == (student.fingerprint, student.weights)
    assert np.array_equal(np.asarray(answer(linked, REQUEST)), np.asarray(answer(student, REQUEST)))


def test_a_student_draws_in_its_own_steps_from_the_requests_seed(student: BaseModel) -> None:
    drawn = answer(student, REQUEST)
    with torch.no_grad():
        conditioning = student.conditioner.condition([Prompt(REQUEST.prompt)])
        latents = draw(student.denoiser, seeded_noises([5], (4, 8, 8), 2), FACTS.timesteps, conditioning)
    (expected,) = to_pictures(student.autoencoder.decode(latents))
    assert isinstance(drawn, Image.Image)
    assert np.array_equal(np.asarray(drawn), np.asarray(expected))


def test_a_concept_of_the_teacher_is_drawn_by_its_student(tiny: BaseModel, student: BaseModel) -> None:
    use = ConceptUse("tom", random_concept(tiny, 1), gate_bias=0.6, gate_temperature=0.15)
    pictures = [answer(student, REQUEST), answer(student, replace(REQUEST, prompt="a red <tom>", concepts=(use,)))]
    plain, with_concept = (np.asarray(picture).astype(int) for picture in pictures)
    assert np.abs(plain - with_concept).max() > 1


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"steps": 50}, "draws in 2 steps, not 50"),
        ({"guidance": 3.0}, "no guidance"),
        ({"negative_prompt": "a dog"}, "no negative prompt"),
    ],
)
def test_what_a_student_cannot_do_is_told(student: BaseModel, change: dict[str, object], message: str) -> None:
    given = answer(student, replace(REQUEST, **change))  # type: ignore[arg-type]  # each value has its field's type
    assert isinstance(given, EngineError)
    assert given.code == "settings-invalid"
    assert message in str(given)


def test_a_student_reports_each_of_its_steps_and_can_be_stopped_before_the_first(student: BaseModel) -> None:
    steps: list[tuple[int, int]] = []
    requests = [replace(REQUEST, seed=seed) for seed in range(3)]
    generate(student, requests, batch_size=2, on_progress=lambda *done: steps.append(done), should_stop=lambda: False)
    assert steps == [(1, 4), (2, 4), (3, 4), (4, 4)]
    with pytest.raises(Interrupted):
        generate(student, requests, batch_size=2, on_progress=lambda *_: None, should_stop=lambda: True)
