"""Validation while a concept trains: what is drawn and graded, which concept is kept, and when it stops."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from PIL import Image

from core.catalog.facts import ModelFacts
from tests.engine.concepts import random_concept
from tests.engine.conftest import BUNDLED_CLIP, BUNDLED_MODEL, DRAWING, load, random_pictures
from tests.engine.test_training import Events, assert_same
from workers.engine.base_model import BaseModel
from workers.engine.dmd.student_file import save_student
from workers.engine.dmd.student_model import StudentFacts, export_student
from workers.engine.errors import Interrupted, ModelUnreadable, PromptTooLong
from workers.engine.metrics import ClipGrader, clip_i, clip_t
from workers.engine.perfusion.concept import ConceptFile
from workers.engine.perfusion.drawing import ValidationFacts
from workers.engine.perfusion.standing import Scores
from workers.engine.perfusion.trainer import ConceptTrainer
from workers.engine.perfusion.training_pictures import prepare_pictures
from workers.engine.perfusion.validation import Examiner, Validation
from workers.engine.tensor_file import read_tensors

FACTS = ValidationFacts(str(BUNDLED_CLIP), DRAWING)
PROMPTS = ("a {} on a hat", "the red {}")
PICTURES = [Image.new("RGB", (16, 16), colour) for colour in ("gray", "slategray", "tan")]  # near what it draws


@pytest.fixture(scope="module")
def validated(tiny: BaseModel) -> BaseModel:
    """The miniature pipeline with something to validate with, at every second step."""
    perfusion = tiny.perfusion.override({"validate_every": 2, "validation_prompts": PROMPTS, "gate_biases": [0.5, 1]})
    return replace(tiny, validation=FACTS, perfusion=perfusion)


def tensors_of(file: ConceptFile) -> list[torch.Tensor]:
    return list(file.concept.tensors().values())


def validation(base: BaseModel, *, should_stop: Callable[[], bool] = lambda: False) -> Validation:
    assert base.validation is not None
    examiner = Examiner(base, base.validation)
    return Validation(examiner, PICTURES, "cat", base.perfusion, seed=5, should_stop=should_stop)


def test_a_concept_is_graded_against_its_pictures_and_the_prompts_of_its_superclass(validated: BaseModel) -> None:
    concept, examination = random_concept(validated, 1), validation(validated)
    examiner, grader = examination._examiner, ClipGrader.load(BUNDLED_CLIP)
    drawn = examiner.painter.draw(examination._prompts(concept), seed=5, batch_size=2, should_stop=lambda: False)
    features = grader.image_features(drawn)
    scores = examination.scores(concept)
    assert scores.clip_i == pytest.approx(clip_i(features, grader.image_features(PICTURES)))
    assert scores.clip_t == pytest.approx(clip_t(features, grader.text_features(["a cat on a hat", "the red cat"])))
    assert drawn[0].size == (16, 16)
    assert drawn[0].tobytes() != drawn[1].tobytes()


def test_scores_depend_on_the_concept_the_seed_and_nothing_else(validated: BaseModel) -> None:
    examination = validation(validated)
    first = examination.scores(random_concept(validated, 1))
    assert examination.scores(random_concept(validated, 2)) != first
    torch.manual_seed(99)
    assert examination.scores(random_concept(validated, 1)) == first
    examination._seed = 6
    assert examination.scores(random_concept(validated, 1)) != first


def test_the_recommended_bias_is_the_best_of_those_tried(validated: BaseModel) -> None:
    biases = (0.2, 0.5, 0.8)
    examination = validation(replace(validated, perfusion=replace(validated.perfusion, gate_biases=biases)))
    concept = random_concept(validated, 1)
    means = {bias: examination._scores_at(concept, bias).harmonic_mean for bias in biases}
    assert len(set(means.values())) == 3
    assert examination.recommended_bias(concept) == max(means, key=lambda bias: means[bias])


def test_a_training_without_anything_to_validate_with_keeps_its_last_step(tiny: BaseModel, tmp_path: Path) -> None:
    file = Events().train(tiny, tmp_path)
    assert (file.steps, file.gate_bias, set(file.scores)) == (4, None, {"loss"})


def test_validation_changes_nothing_of_what_is_learned(validated: BaseModel, tiny: BaseModel, tmp_path: Path) -> None:
    left = []
    for base in (validated, tiny):
        with pytest.raises(Interrupted) as stopped:
            Events(stop_after=3).train(base, tmp_path, config=validated.perfusion)
        assert stopped.value.checkpoint is not None
        tensors, _ = read_tensors(stopped.value.checkpoint)
        left.append({name: tensor for name, tensor in tensors.items() if not name.startswith("best/")})
    assert all(torch.equal(left[0][name], left[1][name]) for name in left[1])


def test_the_result_is_the_concept_of_the_best_validated_step(
    validated: BaseModel, tiny: BaseModel, tmp_path: Path
) -> None:
    events = Events()
    file = events.train(validated, tmp_path, config=replace(validated.perfusion, steps=5), pictures=PICTURES)
    expected = Events().train(tiny, tmp_path, config=replace(validated.perfusion, steps=file.steps), pictures=PICTURES)
    assert file.steps in (2, 4, 5)
    assert all(torch.equal(*pair) for pair in zip(tensors_of(file), tensors_of(expected), strict=True))
    assert file.scores == {**file.scores, **expected.scores}  # the loss as it was then
    seen = [metrics["harmonic_mean"] for _, _, metrics in events.progress if "harmonic_mean" in metrics]
    assert file.scores["harmonic_mean"] >= max(seen)
    assert file.gate_bias in validated.perfusion.gate_biases


def test_progress_carries_the_scores_as_soon_as_they_are_known(validated: BaseModel, tmp_path: Path) -> None:
    events = Events()
    events.train(validated, tmp_path, config=replace(validated.perfusion, steps=5), pictures=PICTURES)
    assert [step for step, _, _ in events.progress] == [1, 2, 2, 3, 4, 4, 5, 5]
    known = [metrics.keys() - {"loss"} for _, _, metrics in events.progress]
    assert known == [set(), set(), *[{"clip_i", "clip_t", "harmonic_mean"}] * 6]
    seen = [metrics["clip_i"] for _, _, metrics in events.progress[2:]]
    assert seen[0] == seen[1] == seen[2] != seen[3] == seen[4] != seen[5]


def test_a_training_ends_once_validations_have_long_brought_nothing_better(
    validated: BaseModel, tmp_path: Path
) -> None:
    events = Events()
    config = replace(validated.perfusion, steps=100, validate_every=1, patience=3)
    file = events.train(validated, tmp_path, config=config, pictures=PICTURES)
    assert events.progress[-1][0] == file.steps + 3 < 100


@pytest.mark.parametrize("stop_after", range(1, 7))
def test_a_validated_training_stopped_at_any_step_ends_as_an_unbroken_one(
    validated: BaseModel, tmp_path: Path, stop_after: int
) -> None:
    config = replace(validated.perfusion, steps=9, patience=2)
    whole, resumed = Events(), Events()
    expected = whole.train(validated, tmp_path, config=config, pictures=PICTURES)
    with pytest.raises(Interrupted) as stopped:
        Events(stop_after=stop_after).train(validated, tmp_path, config=config, pictures=PICTURES)
    checkpoint = stopped.value.checkpoint
    ended = resumed.train(validated, tmp_path, config=config, pictures=PICTURES, resume_from=checkpoint)
    assert_same(ended, expected)
    assert (ended.steps, ended.gate_bias) == (expected.steps, expected.gate_bias)
    told = [step for step, _, _ in whole.progress].index(stop_after)  # before the validation, where one was due
    assert resumed.progress == whole.progress[told + 1 :]


def test_a_stop_in_the_middle_of_a_validation_leaves_it_to_the_resumed_training(validated: BaseModel) -> None:
    with pytest.raises(Interrupted):
        validation(validated, should_stop=lambda: True).scores(random_concept(validated, 1))


def test_a_prompt_that_cannot_be_drawn_is_refused_before_any_step(validated: BaseModel, tmp_path: Path) -> None:
    events = Events()
    config = replace(validated.perfusion, validation_prompts=("a photo of a {} " + "cat " * 30,))
    with pytest.raises(PromptTooLong):
        events.train(validated, tmp_path, config=config)
    assert events.progress == []


@pytest.mark.parametrize("kind", ["folder", "file"])
def test_a_student_draws_in_its_own_steps_wherever_it_lies(
    validated: BaseModel, tiny_folder: Path, tmp_path: Path, kind: str
) -> None:
    facts, unet = StudentFacts("tiny", (999,), guidance=3.0, key_locked=True, steps=1), validated.denoiser.unet
    place = tmp_path / "student"
    if kind == "file":
        save_student(place, unet, facts, validated)
    else:
        export_student(unet, facts, name="s", teacher=tiny_folder, folder=place, dtype=torch.float32)
    base = replace(validated, validation=replace(FACTS, drawing=replace(DRAWING, student=str(place))))
    assert validation(base)._examiner.painter.model.student == facts
    file = Events().train(base, tmp_path, pictures=PICTURES)
    assert 0 < file.scores["clip_i"] <= 1


@pytest.mark.parametrize(
    "facts",
    [
        replace(FACTS, clip="/no/such/folder"),
        replace(FACTS, clip=str(BUNDLED_MODEL)),
        replace(FACTS, drawing=replace(DRAWING, student="/no/such/folder")),
        replace(FACTS, drawing=replace(DRAWING, student=str(BUNDLED_MODEL))),  # no student, and of another model
        replace(FACTS, drawing=replace(DRAWING, student=str(BUNDLED_CLIP / "config.json"))),
    ],
    ids=["no-clip", "not-a-clip", "no-student", "not-a-student", "not-a-file"],
)
def test_what_a_model_names_and_cannot_be_opened_is_told(
    validated: BaseModel, tmp_path: Path, facts: ValidationFacts
) -> None:
    with pytest.raises(ModelUnreadable):
        Events().train(replace(validated, validation=facts), tmp_path)


def test_a_card_names_what_to_validate_with_relative_to_its_folder(tiny_folder: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(tiny_folder, tmp_path / "model")
    card = json.loads((folder / "lockstep.json").read_text())
    shutil.copytree(BUNDLED_CLIP, tmp_path / "clip")

    def read(said: object) -> ValidationFacts | None:
        drawing = {"gate_bias": {"local": 0.65}, "gate_temperature": 0.2, "default_guidance": 2, "default_steps": 20}
        (folder / "lockstep.json").write_text(json.dumps(card | drawing | {"validation": said}))
        return load(folder).validation

    facts = read({"clip": "../clip", "steps": 8})
    assert facts is not None
    drawing = facts.drawing
    assert (Path(facts.clip).resolve(), drawing.student, drawing.steps) == ((tmp_path / "clip").resolve(), None, 8)
    assert (drawing.guidance, drawing.gate_temperature) == (2.0, 0.2)
    assert (drawing.gate_bias["local"], drawing.gate_bias["global"]) == (0.65, 0.5)
    assert read({"clip": "openai/clip"}) == ValidationFacts("openai/clip", replace(drawing, steps=20))
    assert read(None) is None
    for wrong in ({}, {"clip": 3}, {"clip": "c", "steps": "8"}, {"clip": "c", "student": 1}, "clip"):
        with pytest.raises(ModelUnreadable, match="how to validate"):
            read(wrong)


def test_a_card_that_is_silent_is_drawn_with_as_the_product_draws_with_it(tmp_path: Path) -> None:
    drawn, assumed = ValidationFacts.of({"validation": {"clip": "openai/clip"}}, tmp_path), ModelFacts(name="silent")
    assert drawn is not None
    drawing = drawn.drawing
    assert (drawing.steps, drawing.guidance) == (assumed.default_steps, assumed.default_guidance)
    assert (drawing.gate_bias, drawing.gate_temperature) == (assumed.gate_bias, assumed.gate_temperature)


def test_a_validation_is_due_once_at_its_step_and_at_the_last(validated: BaseModel) -> None:
    config = replace(validated.perfusion, steps=5, masked=False)
    trainer = ConceptTrainer(
        validated, prepare_pictures(validated, random_pictures(1), "cat", config, seed=0), "cat", config, seed=0
    )
    due = []
    for trainer.step_count in range(6):
        if trainer.awaits_validation:
            due.append(trainer.step_count)
            trainer.take(Scores(0.5, 0.5))
        assert not trainer.awaits_validation
    assert due == [2, 4, 5]
