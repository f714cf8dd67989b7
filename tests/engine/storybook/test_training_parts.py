"""The mathematics of the recipe: diffusion targets, the linear encoder, the judges' loss."""

from __future__ import annotations

from random import Random

import numpy as np
import pytest
import torch
from torch.nn import functional

from workers.engine.storybook.autoencoder_training import fit_encoder, psnr
from workers.engine.storybook.diffusion import STEPS, Diffusion, channel_weights, sample_timesteps
from workers.engine.storybook.judge_training import leave_one_out_loss
from workers.engine.storybook.networks import make_autoencoder, make_scheduler, make_unet
from workers.engine.storybook.render import render_picture
from workers.engine.storybook.sampling import sample_composition

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def pictures() -> np.ndarray:
    compositions = [sample_composition(Random(k)) for k in range(60)]
    return np.stack([render_picture(c.scene, c.instances, c.layout) for c in compositions])


def diffusion(object_weight: float = 0.0) -> Diffusion:
    return Diffusion(torch.ones(1, 8, 1, 1), object_weight=object_weight, device=CPU)


def test_the_clean_latents_follow_from_noisy_ones_and_the_target():
    generator = torch.Generator().manual_seed(0)
    latents, noise = torch.randn(2, 4, 8, 16, 16, generator=generator)
    timesteps = torch.tensor([0, 300, 700, 999])
    noisy, target = diffusion().noisy_and_target(latents, noise, timesteps)
    signal = make_scheduler().alphas_cumprod[timesteps].view(-1, 1, 1, 1)
    alpha, sigma = signal.sqrt(), (1 - signal).sqrt()
    torch.testing.assert_close(alpha * noisy - sigma * target, latents, atol=1e-5, rtol=0)


def test_at_the_last_step_nothing_of_the_picture_is_left():
    latents, noise = torch.ones(1, 8, 16, 16), torch.full((1, 8, 16, 16), 0.5)
    noisy, target = diffusion().noisy_and_target(latents, noise, torch.tensor([STEPS - 1]))
    torch.testing.assert_close(noisy, noise)
    torch.testing.assert_close(target, -latents)


def test_errors_inside_a_mask_weigh_more():
    prediction, target = torch.zeros(1, 8, 16, 16), torch.zeros(1, 8, 16, 16)
    masks = torch.zeros(1, 1, 16, 16)
    masks[..., :8, :] = 1
    inside, outside = target.clone(), target.clone()
    inside[:, :, 0, 0], outside[:, :, 15, 0] = 1, 1
    weighed = diffusion(object_weight=3.0)
    ratio = weighed.loss(prediction, inside, masks)[0] / weighed.loss(prediction, outside, masks)[0]
    assert ratio == pytest.approx(4.0)


def test_a_uniform_error_costs_the_same_under_any_mask():
    prediction, target = torch.zeros(2, 8, 16, 16), torch.ones(2, 8, 16, 16)
    masks = torch.rand(2, 1, 16, 16, generator=torch.Generator().manual_seed(0))
    assert diffusion(object_weight=2.0).loss(prediction, target, masks)[0] == pytest.approx(1.0)


def test_time_steps_are_stratified_and_spare_the_nearly_clean_ones():
    timesteps = sample_timesteps(1000, torch.Generator().manual_seed(0))
    assert timesteps.min() >= 0
    assert timesteps.max() == STEPS - 1
    assert (timesteps < 150).float().mean() == pytest.approx(0.10, abs=0.005)
    assert (timesteps < 575).float().mean() == pytest.approx(0.55, abs=0.005)


def test_the_fitted_encoder_whitens_the_pictures(pictures: np.ndarray):
    autoencoder = make_autoencoder(8)
    fit_encoder(autoencoder, pictures)
    with torch.no_grad():
        pixels = torch.from_numpy(pictures).permute(0, 3, 1, 2).float() / 127.5 - 1
        latents = autoencoder.encode(pixels).latents  # (60, 8, 16, 16)
    flat = latents.transpose(0, 1).reshape(8, -1)
    torch.testing.assert_close(torch.cov(flat), 0.25 * torch.eye(8), atol=1e-3, rtol=0)
    torch.testing.assert_close(flat.mean(1), torch.zeros(8), atol=1e-3, rtol=0)


def test_channels_of_more_variance_weigh_more(pictures: np.ndarray):
    autoencoder = make_autoencoder(8)
    fit_encoder(autoencoder, pictures)
    weights = channel_weights(autoencoder).flatten()
    assert weights.mean() == pytest.approx(1.0, abs=1e-5)
    assert torch.equal(weights, weights.sort(descending=True).values)


def test_psnr_of_an_untrained_decoder_is_poor_and_finite(pictures: np.ndarray):
    quality = psnr(make_autoencoder(8), torch.from_numpy(pictures[:4]).permute(0, 3, 1, 2))
    assert 0 < quality < 20


def test_a_fresh_unet_predicts_zero_and_has_cross_attention_at_every_resolution():
    unet = make_unet((32, 32, 32))
    with torch.no_grad():
        out = unet(torch.randn(1, 8, 16, 16), torch.tensor([10]), torch.randn(1, 32, 128)).sample
    assert not out.any()
    blocks = [*unet.down_blocks, *unet.up_blocks]
    assert all(block.attentions for block in blocks)


def test_the_identity_loss_is_small_only_if_an_identitys_renders_agree():
    corners = functional.one_hot(torch.arange(4), 4).float()
    together = corners[:, None].expand(4, 3, 4)
    torn_apart = corners.roll(1, 0)[torch.tensor([[0, 1, 2], [3, 0, 1], [2, 3, 0], [1, 2, 3]])]
    assert leave_one_out_loss(together) < 1e-3
    assert leave_one_out_loss(torn_apart) > 1.0


def test_a_render_cannot_find_itself():
    random = functional.normalize(torch.randn(5, 2, 16, generator=torch.Generator().manual_seed(0)), dim=2)
    assert leave_one_out_loss(random) > 0.5
