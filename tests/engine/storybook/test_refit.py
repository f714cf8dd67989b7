"""A U-Net under another text tower: what it heard before, it hears again."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor

from workers.engine.storybook.networks import make_text_encoder, make_unet
from workers.engine.storybook.refit import refit_cross_attention
from workers.engine.storybook.text_training import sample_captions, train_tokenizer
from workers.engine.text import TextEncoder, Tower

CAPTIONS = sample_captions(40)


@pytest.fixture(scope="module")
def tower() -> TextEncoder:
    torch.manual_seed(0)
    tokenizer = train_tokenizer(CAPTIONS)
    return TextEncoder(Tower(tokenizer, make_text_encoder(tokenizer).eval()))


def mixed(tower: TextEncoder, seed: int) -> TextEncoder:
    """The same tower whose encodings are scaled and shifted per channel."""
    model = copy.deepcopy(tower.towers[0].model)
    draw = torch.Generator().manual_seed(seed)
    norm = model.get_submodule("final_layer_norm")
    norm.weight.data = 0.5 + torch.rand(norm.weight.shape, generator=draw)
    norm.bias.data = torch.randn(norm.bias.shape, generator=draw)
    return TextEncoder(Tower(tower.tokenizer, model))


def heard(unet: torch.nn.Module, tower: TextEncoder, text: str) -> Tensor:
    """What a cross-attention makes of a caption: its keys (1, N, inner)."""
    attention = next(module for name, module in unet.named_modules() if name.endswith("attn2"))
    keys: Tensor = attention.to_k(tower.encode([tower.row(tower.tokens(text))]))
    return keys


def test_a_linear_change_of_the_tower_is_undone(tower: TextEncoder):
    unet, after = make_unet((32, 32, 32)), mixed(tower, 1)
    wanted = heard(unet, tower, CAPTIONS[0])
    assert not torch.allclose(heard(unet, after, CAPTIONS[0]), wanted, atol=1e-2)
    explained = refit_cross_attention(unet, tower, after, CAPTIONS)
    assert explained > 0.99
    assert torch.allclose(heard(unet, after, CAPTIONS[0]), wanted, atol=0.05)


def test_an_unrelated_tower_explains_less(tower: TextEncoder):
    torch.manual_seed(1)
    other = TextEncoder(Tower(tower.tokenizer, make_text_encoder(tower.tokenizer).eval()))
    explained = refit_cross_attention(make_unet((32, 32, 32)), tower, other, CAPTIONS)
    assert explained < refit_cross_attention(make_unet((32, 32, 32)), tower, mixed(tower, 1), CAPTIONS)


def test_towers_that_share_no_caption_are_refused(tower: TextEncoder):
    torch.manual_seed(2)
    tokenizer = train_tokenizer(["zebra crossing"] * 9)
    foreign = TextEncoder(Tower(tokenizer, make_text_encoder(tokenizer).eval()))
    with pytest.raises(ValueError, match="agree on none"):
        refit_cross_attention(make_unet((32, 32, 32)), tower, foreign, ["zebra crossing"])
