"""Attention that is taught where things stand: which noun belongs to which cell, and what is lost where it is not."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from transformers import CLIPTokenizer

from workers.engine.storybook.localisation import Localisation, Nouns
from workers.engine.storybook.networks import make_text_encoder, make_unet, token_ids
from workers.engine.storybook.text_training import sample_captions, train_tokenizer

SCARCE = 0.26  # what a noun is owed, with the floor


@pytest.fixture(scope="module")
def tokenizer() -> CLIPTokenizer:
    return train_tokenizer(sample_captions(2000))


@pytest.mark.parametrize(
    ("caption", "nouns"),
    [
        ("a red cat on the beach", ["cat"]),
        ("a green car and a yellow scarf in a room", ["car", "scarf"]),
        ("a striped red cat wearing a blue hat next to a dog wearing green sunglasses in space", ["cat", "dog"]),
        ("a sketch of a robot and a hat and a bird", ["robot", "hat", "bird"]),
        ("", []),
    ],
)
def test_nouns_are_numbered_and_what_is_worn_is_none_of_them(tokenizer: CLIPTokenizer, caption: str, nouns: list[str]):
    ids = token_ids(tokenizer, [caption])
    numbers = Nouns(tokenizer).number(ids)[0]
    found = {int(number): tokenizer.decode([token]).strip() for token, number in zip(ids[0], numbers, strict=True)}
    assert [found[number] for number in sorted(found) if number] == nouns
    assert int((numbers > 0).sum()) == len(nouns)


def test_a_tokenizer_that_splits_the_nouns_is_refused(tokenizer: CLIPTokenizer):
    letters = train_tokenizer(["a b c"])
    with pytest.raises(ValueError, match="splits"):
        Nouns(letters)


class Paid:
    """A miniature U-Net whose attention is written by hand."""

    def __init__(self, tokenizer: CLIPTokenizer, captions: list[str]):
        self.unet = make_unet((32, 32, 32))
        self.localisation = Localisation(self.unet, tokenizer)
        self.ids = token_ids(tokenizer, captions)
        self.numbers = Nouns(tokenizer).number(self.ids)
        self.masks = torch.ones(len(captions), 1, 16, 16)

    def loss(self, pay: Callable[[int, int], Tensor]) -> float:
        """The loss where cell (row, column) of a side-by-side map of 4 pays `pay(row, column)` (B, N) to the tokens."""
        weights = torch.stack([pay(row, column) for row in range(4) for column in range(4)], dim=1)  # (B, 16, N)
        for name, processor in self.unet.attn_processors.items():
            if ".attn2." in name:
                processor.weights = weights[:, None].expand(-1, 2, -1, -1)
        return float(self.localisation.loss(self.ids, self.masks))

    def to_noun(self, number: int) -> Tensor:
        """All attention paid to one thing's noun."""
        return (self.numbers == number).float()


def test_each_cell_owes_its_attention_to_the_thing_that_stands_there(tokenizer: CLIPTokenizer):
    paid = Paid(tokenizer, ["a red cat and a blue dog in the snow"])
    right = paid.loss(lambda _, column: paid.to_noun(1 if column < 2 else 2))
    swapped = paid.loss(lambda _, column: paid.to_noun(2 if column < 2 else 1))
    first_only = paid.loss(lambda _row, _column: paid.to_noun(1))
    assert right == pytest.approx(-math.log(SCARCE), abs=1e-5)
    assert swapped == pytest.approx(-math.log(0.01), abs=1e-4)
    assert first_only == pytest.approx((right + swapped) / 2, abs=1e-4)


def test_a_quarter_of_the_attention_is_enough(tokenizer: CLIPTokenizer):
    paid = Paid(tokenizer, ["a red cat in the snow"])

    def loss(share: float) -> float:
        return paid.loss(lambda _row, _column: share * paid.to_noun(1))

    assert loss(0.1) > loss(0.25) == pytest.approx(loss(0.6))


def test_only_what_a_thing_covers_counts(tokenizer: CLIPTokenizer):
    paid = Paid(tokenizer, ["a red cat in the snow"])
    paid.masks[:, :, 8:] = 0
    above = paid.loss(lambda row, _: paid.to_noun(1) * (row < 2))
    below = paid.loss(lambda row, _: paid.to_noun(1) * (row >= 2))
    assert above < below


def test_a_picture_without_words_costs_nothing(tokenizer: CLIPTokenizer):
    paid = Paid(tokenizer, [""])
    assert paid.loss(lambda _row, _column: torch.zeros(1, 32)) == 0


def test_recording_changes_no_prediction_and_lets_gradients_through(tokenizer: CLIPTokenizer):
    torch.manual_seed(0)
    unet = make_unet((32, 32, 32))
    torch.nn.init.normal_(unet.conv_out.weight)
    ids = token_ids(tokenizer, ["a red cat and a blue dog in the snow"])
    tokens = make_text_encoder(tokenizer)(ids).last_hidden_state.detach()
    latents, timesteps = torch.randn(1, 8, 16, 16), torch.tensor([500])
    with torch.no_grad():
        before = unet(latents, timesteps, tokens).sample
    localisation = Localisation(unet, tokenizer)
    after = unet(latents, timesteps, tokens).sample
    torch.testing.assert_close(after, before, atol=1e-4, rtol=1e-4)  # sums run in another order
    torch.autograd.backward(localisation.loss(ids, torch.ones(1, 1, 16, 16)))
    touched = [name for name, parameter in unet.named_parameters() if parameter.grad is not None]
    assert any("attn2.to_q" in name for name in touched)
    assert any("attn2.to_k" in name for name in touched)
