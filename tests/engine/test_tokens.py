"""Placeholders in prompts."""

from __future__ import annotations

import pytest

from workers.engine.base_model import BaseModel
from workers.engine.errors import PlaceholderUnknown, PromptTooLong, SuperclassInvalid
from workers.engine.perfusion.tokens import TokenRow, align, placeholders, superclass_tokens, tokenize


def row(base: BaseModel, prompt: str, stand_ins: dict[str, str], spelled_out: set[str] | None = None) -> TokenRow:
    tokens = {name: superclass_tokens(base.text, word) for name, word in stand_ins.items()}
    return tokenize(base.text, prompt, tokens, spelled_out or set())


def test_a_placeholder_is_a_name_in_angle_brackets() -> None:
    assert placeholders("<tom> and <my-cat2>, 1 < 2, <Tom>, < tom>, <tom> again") == {"tom", "my-cat2"}


def test_a_prompt_without_placeholders_tokenises_as_the_tokenizer_does(tiny: BaseModel) -> None:
    prompt = "a photo of the red cat, on a hat"
    plain = tiny.text.tokenizer(prompt, padding="max_length", max_length=24).input_ids
    assert list(row(tiny, prompt, {}).ids) == plain


def test_a_placeholder_takes_one_position_whatever_surrounds_it(tiny: BaseModel) -> None:
    spaced, tight = row(tiny, "a <tom> , red", {"tom": "cat"}), row(tiny, "a <tom>, red", {"tom": "cat"})
    assert spaced.ids == tight.ids == row(tiny, "a cat, red", {}).ids
    assert tight.at("tom") == [2]  # begin, a, tom


def test_every_mention_of_a_concept_is_found(tiny: BaseModel) -> None:
    assert row(tiny, "<tom> on the <rex> on <tom>", {"tom": "cat", "rex": "dog"}).at("tom") == [1, 6]


def test_a_spelled_out_superclass_ends_where_its_position_says(tiny: BaseModel) -> None:
    spelled = row(tiny, "a <tom> on a hat", {"tom": "teddy bear"}, {"tom"})
    assert spelled.ids == row(tiny, "a teddy bear on a hat", {}).ids
    assert spelled.at("tom") == [3]


def test_alignment_skips_leading_sub_tokens_and_fills_up_with_padding(tiny: BaseModel) -> None:
    stand_ins = {"tom": "teddy bear", "rex": "dog"}
    short, long = row(tiny, "a <tom> on <rex>", stand_ins), row(tiny, "a <tom> on <rex>", stand_ins, {"tom", "rex"})
    aligned = align(short, long)
    matched = [long.ids[position] for position in aligned]
    assert matched == list(short.ids)  # "bear" where the placeholder is, and all else in its place
    assert aligned[:6] == [0, 1, 3, 4, 5, 6]
    assert aligned[-2:] == [23, 23]


def test_an_unknown_placeholder_is_refused(tiny: BaseModel) -> None:
    with pytest.raises(PlaceholderUnknown, match="<rex>"):
        row(tiny, "<rex> on a hat", {"tom": "cat"})


def test_a_prompt_is_never_cut_off_in_silence(tiny: BaseModel) -> None:
    row(tiny, "cat " * 22, {})
    with pytest.raises(PromptTooLong, match="23 tokens; this model reads 22"):
        row(tiny, "cat " * 23, {})


@pytest.mark.parametrize("superclass", ["", "  ", "<tom>", "a very long story"])
def test_a_superclass_is_a_word_or_two(tiny: BaseModel, superclass: str) -> None:
    with pytest.raises(SuperclassInvalid):
        superclass_tokens(tiny.text, superclass)
