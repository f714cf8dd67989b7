"""The text encoder's wrapper."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from tests.engine.conftest import load
from tests.engine.tiny import WORDS, build_tiny_pipeline
from workers.engine.base_model import BaseModel
from workers.engine.errors import ModelUnsupported
from workers.engine.text import TextEncoder, Tower


def test_replacing_an_embedding_by_itself_changes_nothing(tiny: BaseModel) -> None:
    tokens = tiny.text.tokens("a cat")
    rows = [tiny.text.row(tokens)]
    replaced = tiny.text.encode(rows, {(0, 2): tiny.text.token_embeddings(tokens[1])})
    assert torch.equal(replaced, tiny.text.encode(rows))


def test_a_replaced_embedding_reaches_its_own_prompt_from_its_position_on_and_no_other(tiny: BaseModel) -> None:
    rows = [tiny.text.row(tiny.text.tokens("a cat on a hat"))] * 2
    replaced = tiny.text.encode(rows, {(1, 2): (torch.ones(32),)})
    plain = tiny.text.encode(rows)
    assert torch.equal(replaced[0], plain[0])
    assert torch.equal(replaced[1, :2], plain[1, :2])  # the encoder is causal
    assert not torch.isclose(replaced[1, 2:], plain[1, 2:]).all(-1).any()


def test_an_embedding_gets_a_gradient_and_the_encoder_none(tiny: BaseModel) -> None:
    embedding = torch.ones(32, requires_grad=True)
    tiny.text.encode([tiny.text.row(tiny.text.tokens("a cat"))], {(0, 2): (embedding,)}).square().sum().backward()
    assert embedding.grad is not None
    assert embedding.grad.abs().sum() > 0
    assert all(parameter.grad is None for parameter in tiny.text.towers[0].model.parameters())


def test_no_hook_outlives_a_call(tiny: BaseModel) -> None:
    tiny.text.encode([tiny.text.row([])], {(0, 0): (torch.ones(32),)})
    assert not tiny.text.towers[0].model.get_input_embeddings()._forward_hooks


def test_the_fingerprint_names_the_weights(tiny: BaseModel, tmp_path: Path) -> None:
    again = load(build_tiny_pipeline(tmp_path / "same", seed=0))
    other = load(build_tiny_pipeline(tmp_path / "other", seed=1))
    assert again.fingerprint == tiny.fingerprint
    assert other.fingerprint != tiny.fingerprint


def test_two_towers_lie_side_by_side_and_read_the_layer_before_their_last(tiny_xl: BaseModel) -> None:
    text = tiny_xl.text
    rows = [text.row(text.tokens("a cat")), text.row(text.tokens("the red dog"))]
    encodings = text.encode(rows)
    assert encodings.shape == (2, text.length, text.width)
    for tower, part in zip(text.towers, encodings.split(text.widths, -1), strict=True):
        plain = tower.tokenizer(["a cat", "the red dog"], padding="max_length", return_tensors="pt").input_ids
        assert torch.equal(part, tower.model(plain, output_hidden_states=True).hidden_states[1])  # of two layers


def test_each_tower_pads_with_its_own_token(tiny_xl: BaseModel) -> None:
    first, second = tiny_xl.text.towers
    row = torch.tensor([tiny_xl.text.row(tiny_xl.text.tokens("a cat"))])
    for tower in (first, second):
        plain = tower.tokenizer("a cat", padding="max_length", return_tensors="pt").input_ids
        assert torch.equal(tiny_xl.text._padded_for(tower, row), plain)
    assert first.tokenizer.pad_token_id != second.tokenizer.pad_token_id


def test_the_pooled_prompt_is_the_second_towers(tiny_xl: BaseModel, tiny: BaseModel) -> None:
    second = tiny_xl.text.towers[1]
    plain = second.tokenizer("a cat", padding="max_length", return_tensors="pt").input_ids
    pooled = tiny_xl.text.read([tiny_xl.text.row(tiny_xl.text.tokens("a cat"))]).pooled
    assert pooled is not None
    assert torch.equal(pooled, second.model(plain).text_embeds)
    assert tiny.text.read([tiny.text.row([])]).pooled is None


def test_an_empty_prompt_says_nothing_where_the_pipeline_was_trained_so(tiny_xl: BaseModel) -> None:
    text = tiny_xl.text
    rows = [text.row([]), text.row(text.tokens("a"))]
    said = text.read(rows)
    spoken = TextEncoder(*text.towers).read(rows)
    for blanked, plain in ((said.encodings, spoken.encodings), (said.pooled, spoken.pooled)):
        assert blanked is not None
        assert plain is not None
        assert not blanked[0].any()
        assert plain[0].any()
        assert torch.equal(blanked[1], plain[1])


def test_a_replaced_embedding_reaches_its_own_tower_and_no_other(tiny_xl: BaseModel) -> None:
    text = tiny_xl.text
    tokens = text.tokens("a cat")
    own, other = text.token_embeddings(tokens[1]), text.token_embeddings(text.tokens("dog")[0])
    plain = text.encode([text.row(tokens)]).split(text.widths, -1)
    for k in (0, 1):
        mixed = tuple(other[j] if j == k else own[j] for j in (0, 1))
        replaced = text.encode([text.row(tokens)], {(0, 2): mixed}).split(text.widths, -1)
        assert not torch.equal(replaced[k], plain[k])
        assert torch.equal(replaced[1 - k], plain[1 - k])


def test_the_fingerprint_names_both_towers(tiny_xl: BaseModel) -> None:
    first, second = tiny_xl.text.towers
    fingerprints = {TextEncoder(*towers).fingerprint() for towers in ((first,), (second,), (first, second))}
    assert len(fingerprints) == 3


def test_towers_that_cut_text_differently_are_refused(tiny_xl: BaseModel, tmp_path: Path) -> None:
    first, second = tiny_xl.text.towers
    second.tokenizer.save_pretrained(tmp_path)
    other = type(second.tokenizer).from_pretrained(tmp_path, model_max_length=20)
    with pytest.raises(ModelUnsupported, match="vocabulary"):
        TextEncoder(first, Tower(other, second.model, penultimate=True))
    assert all(first.tokenizer.tokenize(word) == second.tokenizer.tokenize(word) for word in WORDS)
