"""What the API reads of a concept file, and what it refuses by its form."""

from __future__ import annotations

import json
from typing import Any

import pytest

from core.concepts.header import MAX_BYTES, ConceptHeader, read_header
from core.errors import ConceptUnreadable, TooLarge
from tests.concept_files import SPACE, concept_file, tensor_shapes


def refusal(data: bytes) -> str:
    with pytest.raises(ConceptUnreadable) as caught:
        read_header(data)
    assert caught.value.param == "file"
    return caught.value.detail


def test_a_header_says_where_the_concept_may_be_used_and_how_it_came_about():
    assert read_header(concept_file()) == ConceptHeader(
        base_model="storybook", space=SPACE, superclass="cat", key_lock="local", scores={"loss": 0.25}
    )


@pytest.mark.parametrize(("said", "bias"), [(None, None), ("0.65", 0.65), ("0", 0.0)])
def test_a_header_may_recommend_a_gate_bias(said: str | None, bias: float | None):
    assert read_header(concept_file(gate_bias=said)).gate_bias == bias


def test_facts_that_a_later_release_adds_are_left_alone():
    assert read_header(concept_file(mood="fine")) == read_header(concept_file())


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\x89PNG\r\n\x1a\n" + bytes(100),
        b"\xff" * 8,  # a header longer than any memory
        (40).to_bytes(8, "little") + b"{" * 40,
        concept_file()[:-1],
        concept_file() + b"\0",
        b"\x80\x04\x95" + bytes(64),  # the first bytes of a pickle
    ],
    ids=["empty", "picture", "endless", "no-json", "cut-off", "too-long", "pickle"],
)
def test_what_is_no_sound_safetensors_file_is_refused(data: bytes):
    assert "no safetensors file" in refusal(data)


def test_a_file_that_is_larger_than_any_concept_is_not_even_parsed():
    with pytest.raises(TooLarge):
        read_header(bytes(MAX_BYTES + 1))


@pytest.mark.parametrize("said", [None, "lockstep-concept/9", "pt"])
def test_another_format_is_told_by_its_name(said: str | None):
    assert f"its format is {said!r}" in refusal(concept_file(format=said))


@pytest.mark.parametrize(
    ("field", "text"),
    [
        ("base_model", None),
        ("base_model", ""),
        ("base_model", "a\0b"),
        ("encoder", "short"),
        ("covariance", "C" * 64),
        ("layer_widths", "24"),
        ("layer_widths", "[]"),
        ("layer_widths", "[8, -16]"),
        ("superclass", "<cat>"),
        ("superclass", "cat\0"),
        ("gate_bias", "1.5"),
        ("gate_bias", "nan"),
        ("steps", "many"),
        ("settings", "["),
        ("scores", "[]"),
        ("scores", '{"loss": NaN}'),
        ("scores", '{"\\u0000": 1}'),
        ("scores", json.dumps({str(number): 1.0 for number in range(101)})),
    ],
)
def test_metadata_out_of_its_bounds_is_refused_by_the_field_s_name(field: str, text: Any):
    assert field in refusal(concept_file(**{field: text}))


def test_an_unknown_key_lock_is_refused():
    assert "'both'" in refusal(concept_file(key_lock="both"))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"value_outputs": [23]}, "value_outputs"),
        ({"value_outputs": [1, 24]}, "value_outputs"),
        ({"embedding": [5]}, "embedding"),
        ({"superclass_encoding": []}, "superclass_encoding"),
        ({"target_input": [0], "embedding": [0], "superclass_encoding": [0]}, "F16 [0]"),
        ({"extra": [1]}, "other tensors"),
    ],
)
def test_tensors_of_another_shape_are_refused(change: dict[str, list[int]], message: str):
    assert message in refusal(concept_file(shapes=tensor_shapes() | change))


def test_a_missing_tensor_is_refused():
    shapes = tensor_shapes()
    del shapes["embedding"]
    assert "other tensors" in refusal(concept_file(shapes=shapes))


def test_other_numbers_than_half_precision_are_refused():
    assert "F32" in refusal(concept_file(dtype="float32"))


def test_key_outputs_belong_to_trained_keys_alone():
    shapes = tensor_shapes() | {"key_outputs": tensor_shapes()["value_outputs"]}
    assert "other tensors" in refusal(concept_file(shapes=shapes))


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"encoder": "0" * 64}, "text encoder"),
        ({"covariance": "0" * 64}, "covariance"),
        ({"layer_widths": (16, 8)}, "layers"),
    ],
)
def test_a_concept_fits_no_other_space_than_its_own(change: dict[str, object], reason: str):
    header = read_header(concept_file())
    assert header.misfit(SPACE) is None
    assert reason in (header.misfit(SPACE.model_copy(update=change)) or "")


def with_second_embedding(first: int, second: int) -> bytes:
    return concept_file(shapes=tensor_shapes() | {"embedding": [first], "embedding_2": [second]})


def test_a_concept_of_two_text_encoders_has_an_embedding_in_each():
    assert read_header(with_second_embedding(3, 1)) == read_header(concept_file())


@pytest.mark.parametrize(("first", "second"), [(4, 1), (2, 1), (4, 0), (0, 4)])
def test_the_embeddings_are_together_as_wide_as_the_encodings(first: int, second: int):
    assert "where F16" in refusal(with_second_embedding(first, second))
