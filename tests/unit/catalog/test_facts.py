"""What is known of a model before a worker has opened it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from pydantic import ValidationError

from core.catalog.facts import ModelFacts, StudentFacts, read_facts


def model(folder: Path, pipeline: str | None = None, **card: object) -> str:
    if pipeline is not None:
        (folder / "model_index.json").write_text(json.dumps({"_class_name": pipeline}))
    if card:
        (folder / "lockstep.json").write_text(json.dumps(card))
    return str(folder)


@pytest.mark.parametrize("location", ["org/Some-Model", "/models/some-model/"])
def test_what_is_no_folder_here_goes_by_the_last_part_of_its_name(location: str):
    assert read_facts(location) == ModelFacts(name="some-model")


def test_a_folders_own_facts_come_before_what_its_pipeline_tells(tmp_path: Path):
    facts = read_facts(model(tmp_path, "StableDiffusionXLPipeline", name="tiny", size=512))
    assert (facts.name, facts.family, facts.size) == ("tiny", "stable-diffusion-xl", 512)
    (tmp_path / "prompts.txt").write_text("a cat\n\na dog\n")
    assert read_facts(str(tmp_path)).prompts == 2


def test_facts_that_are_none_stop_the_start(tmp_path: Path):
    with pytest.raises(ValidationError):
        read_facts(model(tmp_path, size="large", name="x"))


def test_a_students_folder_is_drawn_with_as_the_student_was_distilled(tmp_path: Path):
    told = {"teacher": "large", "timesteps": [999, 499]}
    facts = read_facts(
        model(tmp_path, name="fast", default_steps=50, default_guidance=7.5, size=256, student=told),
    )
    assert (facts.name, facts.size) == ("fast", 256)
    assert (facts.default_steps, facts.max_steps, facts.default_guidance, facts.prompts) == (2, 2, 1.0, 0)
    assert not facts.takes_guidance
    assert facts.student == StudentFacts(teacher="large", timesteps=(999, 499))
