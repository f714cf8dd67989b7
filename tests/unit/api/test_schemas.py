"""What requests may say."""

from __future__ import annotations

import json

import pytest
from pydantic import ValidationError

from api.schemas.concepts import CreateConcept
from api.schemas.drawing import CreateGeneration, CreateSweep
from api.schemas.trainings import CreateTraining
from core.jobs.params import Sweep


@pytest.mark.parametrize(
    ("size", "parsed"), [("64x128", (64, 128)), (64, (64, 64)), ("0x0", (0, 0)), ("99999x1", (99999, 1))]
)
def test_a_size_is_two_numbers_or_one(size, parsed):
    assert CreateGeneration.model_validate({"prompt": "a", "size": size}).size == parsed


@pytest.mark.parametrize(
    "size", ["64", "64X64", "64x", "x64", "-64x64", "64x64x64", " 64x64", "1e3x64", True, 64.0, [64, 64], {}]
)
def test_anything_else_is_no_size(size):
    with pytest.raises(ValidationError):
        CreateGeneration.model_validate({"prompt": "a", "size": size})


@pytest.mark.parametrize("body", [CreateTraining, CreateGeneration, CreateSweep, CreateConcept])
def test_the_examples_in_the_documentation_are_accepted(body):
    for example in body.model_config["json_schema_extra"]["examples"]:
        body.model_validate(example)


def test_a_sweep_asks_for_one_picture_at_each_value():
    body = {"prompt": "<tom>", "seed": 7, "sweep": {"concept": "tom", "gate_temperature": [0.3, 0.1, 0.2]}}
    request = CreateSweep.model_validate(body).as_request()
    assert (request.prompt, request.seed, request.n) == ("<tom>", 7, 3)
    assert request.sweep == Sweep(concept="tom", dial="gate_temperature", values=(0.3, 0.1, 0.2))


def test_a_sweep_and_a_generation_say_the_rest_alike():
    fields, others = CreateSweep.model_fields, CreateGeneration.model_fields
    assert fields.keys() ^ others.keys() == {"sweep", "n"}


@pytest.mark.parametrize("text", ["\0", "a\0b", "\ud800", "a\udfff"])
@pytest.mark.parametrize("field", ["prompt", "negative_prompt", "model"])
def test_text_that_cannot_be_stored_is_refused(text, field):
    with pytest.raises(ValidationError):
        CreateGeneration.model_validate({"prompt": "a"} | {field: text})


@pytest.mark.parametrize("word", ["cat", "teddy bear", "maine-coon cat", "dog's toy", "Schäferhund", " cat "])
def test_a_superclass_is_a_few_words_in_any_alphabet(word):
    assert CreateConcept(name="tom", superclass=word).superclass == word.strip()


def test_the_same_request_is_the_same_text_whatever_its_order():
    one = CreateGeneration.model_validate({"prompt": "a", "size": 64, "concepts": [{"name": "tom", "as": "him"}]})
    other = CreateGeneration.model_validate(
        {"concepts": [{"as": "him", "name": "tom"}], "size": "64x64", "prompt": "a"}
    )
    assert one.model_dump_json(by_alias=True) == other.model_dump_json(by_alias=True)
    assert json.loads(one.model_dump_json(by_alias=True))["concepts"][0]["as"] == "him"
