from __future__ import annotations

import pytest
from pydantic import ValidationError

from core.jobs.params import GenerationParams, TrainingParams, cost_ms, is_training_lane, lane


def generation(**changes: object) -> GenerationParams:
    values = {
        "prompt": "a cat",
        "model_id": "m",
        "steps": 50,
        "guidance": 3,
        "n": 1,
        "seed": 1,
        "width": 64,
        "height": 64,
    }
    return GenerationParams.model_validate(values | changes)


def training(**changes: object) -> TrainingParams:
    values = {
        "concept_id": "c", "concept_name": "tom", "superclass": "cat", "model_id": "m",
        "file_ids": ["f"], "key_lock": "local", "seed": 1,
    }  # fmt: skip
    return TrainingParams.model_validate(values | changes)


@pytest.mark.parametrize("change", [{"prompt": "a dog"}, {"n": 4}, {"seed": 9}, {"guidance": 7}])
def test_generations_share_a_lane_whatever_they_draw(change):
    assert lane(generation(), "1") == lane(generation(**change), "2")


@pytest.mark.parametrize("change", [{"model_id": "x"}, {"steps": 20}, {"width": 128}])
def test_generations_of_another_model_size_or_length_do_not(change):
    assert lane(generation(), "1") != lane(generation(**change), "1")


def test_trainings_share_a_lane_on_one_model():
    assert lane(training(), "1") == lane(training(steps=9, key_lock="global", superclass="dog"), "2")
    assert lane(training(), "1") != lane(training(model_id="x"), "2")


def test_only_trainings_form_cohorts():
    assert is_training_lane(lane(training(), "1"))
    assert not is_training_lane(lane(generation(), "1"))
    assert not is_training_lane("alone:1")


def test_cost_grows_with_what_is_drawn():
    assert cost_ms(generation(n=4)) == 4 * cost_ms(generation())
    assert cost_ms(generation(steps=100)) == 2 * cost_ms(generation())
    assert cost_ms(training(steps=200)) < cost_ms(training(steps=400))


@pytest.mark.parametrize("change", [{"n": 0}, {"seed": -1}, {"steps": 0}, {"width": 0}, {"hue": "red"}])
def test_what_cannot_be_drawn_is_refused(change):
    with pytest.raises(ValidationError):
        generation(**change)
