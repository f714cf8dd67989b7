"""The text tower's later phrases: how they are found, what they are to be encoded as, and that training gets there."""

from __future__ import annotations

import copy

import pytest
import torch
from transformers import CLIPTextModel, CLIPTokenizer

from workers.engine.storybook.networks import make_text_encoder, token_ids
from workers.engine.storybook.phrase_training import (
    Grammar,
    PhraseSettings,
    PhraseTargets,
    class_share,
    encode,
    train_phrases,
)
from workers.engine.storybook.text_training import sample_captions, train_tokenizer

PAIR = "a spotted red cat wearing a blue hat and a dog wearing green sunglasses on the beach"


@pytest.fixture(scope="module")
def tokenizer() -> CLIPTokenizer:
    return train_tokenizer(sample_captions(2000))


@pytest.fixture(scope="module")
def tower(tokenizer: CLIPTokenizer) -> CLIPTextModel:
    torch.manual_seed(0)
    return make_text_encoder(tokenizer).eval()


@pytest.mark.parametrize(
    ("caption", "phrases"),
    [
        ("a red cat in the snow", []),
        ("a red cat wearing a striped hat at night", [("a striped hat", "worn by 1")]),
        (PAIR, [("a blue hat", "worn by 1"), ("a dog", "thing 2"), ("green sunglasses", "worn by 2")]),
        ("a sketch of a cat next to a red dog next to a hat", [("a red dog", "thing 2"), ("a hat", "thing 3")]),
        ("", []),
    ],
)
def test_every_phrase_but_the_first_things_is_found(
    tokenizer: CLIPTokenizer, caption: str, phrases: list[tuple[str, str]]
):
    ids = token_ids(tokenizer, [caption])[0].tolist()
    found = Grammar(tokenizer).later_phrases(ids)
    assert [(tokenizer.decode(ids[phrase.start : phrase.end]).strip(), phrase.role) for phrase in found] == phrases


def test_a_later_phrase_is_to_be_what_it_is_alone_but_for_a_constant(tower: CLIPTextModel, tokenizer: CLIPTokenizer):
    captions = ["a cat and a red dog", "a hat and a red dog on the beach", "a cat and a car"]
    targets = PhraseTargets(tower, tokenizer, captions)
    wanted, later = targets.of(torch.arange(3))
    alone = encode(tower, token_ids(tokenizer, ["a red dog", "a car"]))[:, 1:4]
    start = 4  # begin, a, cat, and
    assert later[0].nonzero().flatten().tolist() == [start, start + 1, start + 2]
    marker = wanted[0, start] - alone[0, 0]
    torch.testing.assert_close(wanted[0, start : start + 3], alone[0] + marker)
    torch.testing.assert_close(wanted[1, start : start + 3], alone[0] + marker)
    torch.testing.assert_close(wanted[2, start : start + 2], alone[1, :2] + marker)


def test_the_constant_is_the_mean_of_what_the_place_did_to_the_noun(tower: CLIPTextModel, tokenizer: CLIPTokenizer):
    captions = ["a cat and a red dog", "a hat and a car"]
    wanted, _ = PhraseTargets(tower, tokenizer, captions).of(torch.arange(2))
    was = encode(tower, token_ids(tokenizer, captions))
    ends = [(0, 6), (1, 5)]  # the second nouns
    assert torch.stack([wanted[at] - was[at] for at in ends]).mean(0).abs().max() < 1e-5


def test_all_other_tokens_are_to_stay_as_they_are(tower: CLIPTextModel, tokenizer: CLIPTokenizer):
    wanted, later = PhraseTargets(tower, tokenizer, [PAIR, "a red cat"]).of(torch.arange(2))
    was = encode(tower, token_ids(tokenizer, [PAIR, "a red cat"]))
    assert torch.equal(wanted[~later], was[~later])
    assert not bool(later[1].any())


def test_the_class_explains_all_that_varies_where_nothing_else_does(tower: CLIPTextModel, tokenizer: CLIPTokenizer):
    blind = copy.deepcopy(tower)
    for layer in blind.encoder.layers:
        torch.nn.init.zeros_(layer.self_attn.out_proj.weight)  # tokens no longer hear each other
    captions = ["a cat and a dog", "a hat and a dog", "a hat and a car", "a boat and a car"]
    assert class_share(blind, tokenizer, captions) == pytest.approx(1.0)
    assert class_share(tower, tokenizer, captions) < 1.0


def test_training_nears_the_targets_and_leaves_the_given_tower_alone(tower: CLIPTextModel, tokenizer: CLIPTokenizer):
    loud = copy.deepcopy(tower)
    with torch.no_grad():
        for layer in loud.encoder.layers:
            layer.self_attn.out_proj.weight.mul_(4)  # the first noun drowns the second
    before = copy.deepcopy(loud.state_dict())
    trained, record = train_phrases(loud, tokenizer, PhraseSettings(minutes=1.0, steps=150, captions=600, batch=32))
    assert all(torch.equal(before[name], tensor) for name, tensor in loud.state_dict().items())
    targets = PhraseTargets(loud, tokenizer, sample_captions(100, first=5000))
    wanted, later = targets.of(torch.arange(100))

    def error(some: CLIPTextModel) -> float:
        return float((encode(some, targets.ids) - wanted).square()[later].mean())

    assert error(trained) < 0.7 * error(loud)
    assert (record.steps, record.class_share > record.class_share_before) == (150, True)
