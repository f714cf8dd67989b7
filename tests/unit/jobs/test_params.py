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


def use(name: str, **changes: object) -> dict[str, object]:
    values = {"concept_id": "c", "version": 1, "file_id": "f", "name": name, "key_lock": "local"}
    return values | {"gate_bias": 0.7, "gate_temperature": 0.15} | changes


def sweep(*values: float, **changes: object) -> dict[str, object]:
    return {"concept": "tom", "dial": "gate_bias", "values": values} | changes


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


def test_a_sweep_costs_and_shares_as_that_many_pictures_do():
    swept = generation(n=4, concepts=[use("tom")], sweep=sweep(0.4, 0.5, 0.6, 0.7))
    assert cost_ms(swept) == cost_ms(generation(n=4))
    assert lane(swept, "1") == lane(generation(), "2")


def test_without_a_sweep_pictures_differ_by_their_seeds_alone():
    params = generation(n=3, concepts=[use("tom")])
    assert [params.seed_of(picture) for picture in range(3)] == [1, 2, 3]
    assert [params.swept(picture) for picture in range(3)] == [{}, {}, {}]
    assert {params.concepts_of(picture) for picture in range(3)} == {params.concepts}


@pytest.mark.parametrize("dial", ["gate_bias", "gate_temperature"])
def test_pictures_of_a_sweep_differ_by_one_dial_of_one_concept_alone(dial):
    params = generation(n=2, concepts=[use("ann"), use("tom")], sweep=sweep(0.9, 0.4, dial=dial))
    assert [params.seed_of(picture) for picture in range(2)] == [1, 1]
    assert [params.swept(picture) for picture in range(2)] == [{dial: 0.9}, {dial: 0.4}]
    for picture, value in enumerate((0.9, 0.4)):
        ann, tom = params.concepts_of(picture)
        assert ann == params.concepts[0]
        assert tom == params.concepts[1].model_copy(update={dial: value})


def test_a_job_from_before_there_were_sweeps_has_none():
    assert generation().sweep is None


@pytest.mark.parametrize(
    "change",
    [
        {"n": 3},
        {"concepts": [use("ann")]},
        {"n": 1, "sweep": sweep(0.4)},
        {"n": 17, "sweep": sweep(*range(17))},
        {"sweep": sweep(0.4, 0.5, dial="guidance")},
    ],
)
def test_a_sweep_that_does_not_fit_its_generation_is_refused(change):
    fitting = {"n": 2, "concepts": [use("tom")], "sweep": sweep(0.4, 0.5)}
    generation(**fitting)
    with pytest.raises(ValidationError):
        generation(**fitting | change)


@pytest.mark.parametrize("change", [{"n": 0}, {"seed": -1}, {"steps": 0}, {"width": 0}, {"hue": "red"}])
def test_what_cannot_be_drawn_is_refused(change):
    with pytest.raises(ValidationError):
        generation(**change)
