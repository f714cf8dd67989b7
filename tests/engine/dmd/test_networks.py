"""The trained copies of a U-Net: equal to what is served, sharing what they should, tapped at their lowest level."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from diffusers import UNet2DConditionModel
from torch import Tensor

from workers.engine import attention
from workers.engine.attention import Conditioning, KeyValueProjections
from workers.engine.base_model import BaseModel
from workers.engine.conditioning import Prompt
from workers.engine.denoiser import Denoiser
from workers.engine.dmd.context import Context
from workers.engine.dmd.discriminator import Discriminator
from workers.engine.dmd.material import PromptContexts
from workers.engine.dmd.networks import UNetScore, weights_digest

SHAPE = (2, 4, 8, 8)
PROMPTS = ("a red cat", "the dog")


def inputs(base: BaseModel) -> tuple[Tensor, Tensor, Context]:
    x_t = torch.randn(SHAPE, generator=torch.Generator().manual_seed(0))
    return x_t, torch.tensor([999, 400]), told(base, *PROMPTS)


def told(base: BaseModel, *prompts: str) -> Context:
    return PromptContexts(base.text, prompts, size=base.native_size).take(torch.arange(len(prompts)))


def conditioned(base: BaseModel) -> Conditioning:
    with torch.no_grad():
        return base.conditioner.condition([Prompt(prompt) for prompt in PROMPTS])


@pytest.fixture(params=["tiny", "tiny_xl"])
def family(request: pytest.FixtureRequest) -> BaseModel:
    """Either family's miniature."""
    base: BaseModel = request.getfixturevalue(request.param)
    return base


def without_middle(base: BaseModel) -> BaseModel:
    """The same model but for its U-Net, which goes straight from down to up."""
    torch.manual_seed(1)
    kept = {name: value for name, value in base.denoiser.unet.config.items() if name[0] != "_"}
    unet = UNet2DConditionModel.from_config(kept | {"mid_block_type": None}).eval().requires_grad_(False)
    projections = KeyValueProjections.of(unet)
    attention.install(unet, projections)
    return replace(base, denoiser=Denoiser(unet, base.denoiser.schedule), projections=projections)


@pytest.mark.parametrize("make", [UNetScore.copy_of, UNetScore.view_of])
def test_a_copy_predicts_what_the_served_model_does(family: BaseModel, make) -> None:
    x_t, t, context = inputs(family)
    network = make(family.denoiser.unet, family.denoiser.schedule, autocast=False)
    with torch.no_grad():
        served = family.denoiser.predict_x0(x_t, t, conditioned(family))
        torch.testing.assert_close(network.predict_x0(x_t, t, context), served, atol=1e-5, rtol=1e-5)


def test_making_copies_leaves_the_served_model_as_it_was(tiny: BaseModel) -> None:
    x_t, t, _ = inputs(tiny)
    conditioning = conditioned(tiny)
    before = tiny.denoiser.output(x_t, t, conditioning)
    for make in (UNetScore.copy_of, UNetScore.view_of):
        make(tiny.denoiser.unet, tiny.denoiser.schedule, autocast=True)
    assert torch.equal(tiny.denoiser.output(x_t, t, conditioning), before)
    assert not any(parameter.requires_grad for parameter in tiny.denoiser.unet.parameters())


def test_a_view_holds_the_very_weights_and_a_copy_its_own(tiny: BaseModel) -> None:
    own = {parameter.data_ptr() for parameter in tiny.denoiser.unet.parameters()}
    view = UNetScore.view_of(tiny.denoiser.unet, tiny.denoiser.schedule, autocast=False)
    copied = UNetScore.copy_of(tiny.denoiser.unet, tiny.denoiser.schedule, autocast=False)
    assert {parameter.data_ptr() for parameter in view.parameters()} == own
    assert own.isdisjoint(parameter.data_ptr() for parameter in copied.parameters())
    assert not view.trained()
    assert len(copied.trained()) == len(own)


def test_locking_freezes_the_keys_and_values_of_every_cross_attention_layer_and_nothing_else(tiny: BaseModel) -> None:
    network = UNetScore.copy_of(tiny.denoiser.unet, tiny.denoiser.schedule, autocast=False)
    network.lock_keys()
    frozen = {name.removeprefix("unet.") for name, p in network.named_parameters() if not p.requires_grad}
    layers = tiny.projections.names
    assert frozen == {f"{layer}.to_{side}.weight" for layer in layers for side in "kv"}


def test_an_average_shares_what_is_frozen_and_copies_what_is_learned(tiny: BaseModel) -> None:
    network = UNetScore.copy_of(tiny.denoiser.unet, tiny.denoiser.schedule, autocast=False)
    network.lock_keys()
    average = dict(network.average().named_parameters())
    for name, parameter in network.named_parameters():
        assert (average[name].data_ptr() == parameter.data_ptr()) == (name in network.locked())
        assert not average[name].requires_grad
    assert set(network.trained()) == set(average) - set(network.locked())


def test_half_precision_rounds_inside_and_not_at_the_end(tiny: BaseModel) -> None:
    x_t, t, context = inputs(tiny)
    whole = UNetScore.copy_of(tiny.denoiser.unet, tiny.denoiser.schedule, autocast=False)
    half = UNetScore.copy_of(tiny.denoiser.unet, tiny.denoiser.schedule, autocast=True)
    output = half(x_t, t, context)
    assert output.dtype == torch.float32
    assert not torch.equal(output, output.bfloat16().float())  # its last layer did not round
    torch.testing.assert_close(output, whole(x_t, t, context), atol=0.05, rtol=0.05)
    gradients = torch.autograd.grad(half(x_t, t, context).square().mean(), list(half.trained().values()))
    assert all(gradient.dtype == torch.float32 and gradient.isfinite().all() for gradient in gradients)


def test_the_bottleneck_is_the_middle_blocks_output(family: BaseModel) -> None:
    network = UNetScore.copy_of(family.denoiser.unet, family.denoiser.schedule, autocast=False)
    seen: list[Tensor] = []
    network.unet.mid_block.register_forward_hook(lambda _block, _inputs, output: seen.append(output))
    network(*inputs(family))
    features = network.features(*inputs(family))[-1]
    assert features.shape == (2, 32, 4, 4)
    assert torch.equal(features, seen[0])


def test_features_are_what_goes_across_to_the_way_up(family: BaseModel) -> None:
    network = UNetScore.copy_of(family.denoiser.unet, family.denoiser.schedule, autocast=False)
    across: list[Tensor] = []
    network.unet.conv_in.register_forward_hook(lambda _layer, _inputs, output: across.append(output))
    for block in network.unet.down_blocks:
        block.register_forward_hook(lambda _block, _inputs, outputs: across.extend(outputs[1]))
    network(*inputs(family))
    *features, _ = network.features(*inputs(family))
    assert len(features) == sum(len(block.resnets) for block in network.unet.up_blocks)
    for ours, passed in zip(features, across, strict=False):
        assert torch.equal(ours, passed)


def test_the_bottleneck_of_a_model_without_a_middle_is_its_lowest_level(tiny: BaseModel) -> None:
    base = without_middle(tiny)
    network = UNetScore.copy_of(base.denoiser.unet, base.denoiser.schedule, autocast=False)
    seen: list[Tensor] = []
    network.unet.down_blocks[-1].register_forward_hook(lambda _block, _inputs, output: seen.append(output[0]))
    network(*inputs(base))
    assert torch.equal(network.features(*inputs(base))[-1], seen[0])


def test_what_reads_the_bottleneck_teaches_the_way_down_and_not_the_way_up(tiny: BaseModel) -> None:
    network = UNetScore.copy_of(tiny.denoiser.unet, tiny.denoiser.schedule, autocast=False)
    trained = network.trained()
    loss = network.features(*inputs(tiny))[-1].square().mean()
    gradients = torch.autograd.grad(loss, list(trained.values()), allow_unused=True)
    reached = {name.split(".")[1] for name, given in zip(trained, gradients, strict=True) if given is not None}
    assert reached == {"conv_in", "time_embedding", "down_blocks", "mid_block"}


def test_the_digest_tells_weights_apart_whatever_dresses_them(tiny: BaseModel) -> None:
    network = UNetScore.copy_of(tiny.denoiser.unet, tiny.denoiser.schedule, autocast=False)
    assert weights_digest(network.unet) == weights_digest(tiny.denoiser.unet)
    next(iter(network.trained().values())).data.view(-1)[0] += 1e-3
    assert weights_digest(network.unet) != weights_digest(tiny.denoiser.unet)


@pytest.mark.parametrize("shape", [(64, 4, 4), (64, 8, 8), (96, 16, 12), (32, 1, 1), (8, 2, 3)])
def test_a_discriminator_gives_each_sample_one_logit_that_depends_on_it_alone(shape: tuple[int, int, int]) -> None:
    features = torch.randn((3, *shape), generator=torch.Generator().manual_seed(0))
    head = Discriminator.reading(features, seed=0)
    logits = head(features)
    assert logits.shape == (3,)
    assert len(logits.unique()) == 3
    torch.testing.assert_close(head(features[1:2]), logits[1:2])


def test_a_discriminators_weights_depend_on_its_seed_and_on_nothing_around_it() -> None:
    features = torch.zeros(1, 16, 4, 4)
    torch.manual_seed(5)
    first, around = Discriminator.reading(features, seed=1), torch.rand(1)
    torch.manual_seed(5)
    assert torch.equal(torch.rand(1), around)  # drawing them took nothing from the global generator
    again, other = Discriminator.reading(features, seed=1), Discriminator.reading(features, seed=2)
    start, same, different = (next(iter(head.parameters())) for head in (first, again, other))
    assert torch.equal(start, same)
    assert not torch.equal(start, different)
