"""What a training shows of itself on the way, and that this changes nothing of what it learns."""

from __future__ import annotations

import json
import logging
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from PIL import Image

from tests.engine.conftest import BUNDLED_CLIP, DRAWING, load
from tests.engine.test_training import Events, assert_same
from workers.engine.base_model import BaseModel
from workers.engine.dmd.student_file import save_student
from workers.engine.dmd.student_model import StudentFacts
from workers.engine.errors import Interrupted, ModelUnreadable
from workers.engine.perfusion.drawing import PreviewFacts, ValidationFacts
from workers.engine.perfusion.painter import Painter

FACTS = PreviewFacts(every=2, prompts=("a {} on a hat", "the red {}"), drawing=DRAWING)


@pytest.fixture(scope="module")
def showing(tiny: BaseModel) -> BaseModel:
    """The miniature pipeline, whose trainings show themselves at every second of five steps."""
    perfusion = tiny.perfusion.override({"steps": 5, "checkpoint_every": 3})
    return replace(tiny, preview=FACTS, perfusion=perfusion)


def steps_shown(events: Events) -> list[int]:
    return [step for step, _ in events.previews]


def test_a_training_shows_its_prompts_as_often_as_the_model_says_and_at_the_end(
    showing: BaseModel, tmp_path: Path
) -> None:
    events = Events()
    events.train(showing, tmp_path)
    assert steps_shown(events) == [2, 4, 5]
    with Image.open(events.previews[0][1]) as sheet:
        assert (sheet.format, sheet.size) == ("WEBP", (32, 16))
    assert len({path.read_bytes() for _, path in events.previews}) == 3


def test_showing_changes_nothing_of_what_is_learned(showing: BaseModel, tiny: BaseModel, tmp_path: Path) -> None:
    expected = Events().train(tiny, tmp_path, config=showing.perfusion)
    assert_same(Events().train(showing, tmp_path), expected)


def test_a_training_that_goes_on_shows_what_an_unbroken_one_does(showing: BaseModel, tmp_path: Path) -> None:
    unbroken, broken, resumed = Events(), Events(stop_after=3), Events()
    unbroken.train(showing, tmp_path)
    shown = [path.read_bytes() for _, path in unbroken.previews]
    with pytest.raises(Interrupted) as stopped:
        broken.train(showing, tmp_path)
    resumed.train(showing, tmp_path, resume_from=stopped.value.checkpoint)
    assert (steps_shown(broken), steps_shown(resumed)) == ([2], [4, 5])
    assert [path.read_bytes() for _, path in (*broken.previews, *resumed.previews)] == shown


def test_without_prompts_of_its_own_the_first_eight_of_the_validation_are_shown(
    showing: BaseModel, tmp_path: Path
) -> None:
    prompts = tuple(f"{word} {{}}" for word in ("a", "the", "red", "one", "two", "my", "this", "that", "no"))
    base = replace(showing, preview=replace(FACTS, prompts=None))
    events = Events()
    events.train(base, tmp_path, config=replace(base.perfusion, steps=1, validation_prompts=prompts))
    with Image.open(events.previews[0][1]) as sheet:
        assert sheet.size == (64, 32)


def test_a_student_draws_where_one_is_named_and_is_opened_once(
    showing: BaseModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    student = StudentFacts("tiny", (999,), guidance=3.0, key_locked=True, steps=1)
    save_student(tmp_path / "student", showing.denoiser.unet, student, showing)
    drawing = replace(DRAWING, student=str(tmp_path / "student"))
    opened: list[Painter] = []
    opening = Painter.open

    def noted(base: BaseModel, drawing: object) -> Painter:
        opened.append(opening(base, drawing))  # type: ignore[arg-type]  # what it was given
        return opened[-1]

    monkeypatch.setattr(Painter, "open", noted)
    validation = ValidationFacts(str(BUNDLED_CLIP), drawing)
    base = replace(showing, preview=replace(FACTS, drawing=drawing), validation=validation)
    events = Events()
    events.train(base, tmp_path, config=replace(base.perfusion, validation_prompts=("a {}",), gate_biases=(0.5,)))
    assert steps_shown(events) == [2, 4, 5]
    assert [painter.model.student for painter in opened] == [student]


@pytest.mark.parametrize(
    ("facts", "told"),
    [
        (replace(FACTS, drawing=replace(DRAWING, student="/no/such/folder")), "no previews"),
        (replace(FACTS, prompts=("a {} and " + 80 * "cat ",)), "not shown"),
        (replace(FACTS, prompts=("a {} in {style}",)), "not shown"),
    ],
    ids=["no-student", "too-long", "not-a-template"],
)
def test_what_cannot_be_shown_is_learned_all_the_same(
    showing: BaseModel, tmp_path: Path, facts: PreviewFacts, told: str, caplog: pytest.LogCaptureFixture
) -> None:
    events = Events()
    with caplog.at_level(logging.WARNING):
        file = events.train(replace(showing, preview=facts), tmp_path)
    assert (file.steps, events.previews) == (5, [])
    assert told in caplog.text


def test_a_training_that_is_to_stop_is_not_shown_first(showing: BaseModel, tmp_path: Path) -> None:
    events = Events(stop_after=2)
    with pytest.raises(Interrupted) as stopped:
        events.train(showing, tmp_path)
    assert (stopped.value.step, events.previews) == (2, [])


def test_a_card_says_how_often_in_which_prompts_and_by_whom(tiny_folder: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(tiny_folder, tmp_path / "model")
    card = json.loads((folder / "lockstep.json").read_text()) | {"default_steps": 20}

    def read(said: object) -> PreviewFacts | None:
        (folder / "lockstep.json").write_text(json.dumps(card | {"preview": said}))
        return load(folder).preview

    facts = read({"every": 10, "prompts": ["a {}"], "student": "openai/student"})
    assert facts is not None
    assert (facts.every, facts.prompts, facts.drawing.student) == (10, ("a {}",), "openai/student")
    plain = read({})
    assert plain is not None
    assert (plain.every, plain.prompts, plain.drawing.student, plain.drawing.steps) == (50, None, None, 20)
    assert read(None) is None
    wrongs: list[object] = [
        {"every": 0},
        {"every": "5"},
        {"prompts": []},
        {"prompts": ["a cat"]},
        {"steps": "8"},
        "yes",
    ]
    for wrong in wrongs:
        with pytest.raises(ModelUnreadable, match="how to show"):
            read(wrong)
