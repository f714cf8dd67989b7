"""Masks from the base model's own cross-attention."""

from __future__ import annotations

import torch

from tests.engine.conftest import random_pictures
from workers.engine.attention import AttentionMaps
from workers.engine.base_model import BaseModel
from workers.engine.perfusion.masks import attention_masks
from workers.engine.pictures import to_pixels


def test_a_map_is_the_attention_to_the_chosen_token_averaged_over_heads() -> None:
    maps = AttentionMaps(torch.tensor([[0.0, 1.0]]))
    query = torch.tensor([[[[1.0], [0.0]], [[1.0], [-1.0]]]])  # two heads, two positions, head width 1
    key = torch.tensor([[[[0.0], [1.0]], [[0.0], [1.0]]]])
    maps.record(query, key)
    chosen = torch.sigmoid(torch.tensor([[1.0, 0.0], [1.0, -1.0]])).mean(0)
    torch.testing.assert_close(maps.maps[0], chosen[None])


def test_watching_attention_does_not_change_the_prediction(tiny: BaseModel) -> None:
    conditioning = tiny.conditioner.projections.project(torch.ones(1, 24, 32), torch.ones(1, 24, 32))
    x, t = torch.ones(1, 4, 8, 8), torch.tensor([500])
    maps = AttentionMaps(torch.ones(1, 24))
    with torch.no_grad():
        assert torch.equal(tiny.denoiser.output(x, t, conditioning, maps), tiny.denoiser.output(x, t, conditioning))
    assert len(maps.maps) == len(tiny.projections.widths)
    for layer in maps.maps:
        torch.testing.assert_close(layer, torch.ones_like(layer))  # all tokens together get all attention


def test_masks_peak_at_one_and_leave_no_picture_without_weight(tiny: BaseModel) -> None:
    latents = tiny.autoencoder.encode(to_pixels(random_pictures(3), 16))
    masks = attention_masks(tiny, latents, "teddy bear", template="the photo of a {}", seed=0)
    assert masks.shape == (3, 1, 8, 8)
    assert torch.equal(masks.amax((1, 2, 3)), torch.ones(3))
    assert float(masks.min()) > 0
    assert torch.equal(masks, attention_masks(tiny, latents, "teddy bear", template="the photo of a {}", seed=0))
