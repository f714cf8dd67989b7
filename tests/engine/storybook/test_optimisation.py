"""The U-Net's optimiser: who steps what, and steps that survive other storage and a checkpoint."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from workers.engine.storybook.optimisation import UnetOptimiser


def network() -> nn.ModuleDict:
    """Layers by the names that a U-Net has: an edge, a hidden kernel and a hidden matrix."""
    torch.manual_seed(0)
    layers = {"conv_in": nn.Conv2d(2, 6, 3), "hidden": nn.Conv2d(6, 4, 3), "linear": nn.Linear(4, 5)}
    return nn.ModuleDict(layers)


def optimiser_of(layers: nn.ModuleDict, *, muon: bool) -> UnetOptimiser:
    return UnetOptimiser(layers.named_parameters(), lr=0.1, weight_decay=0.0, muon=muon)


def give_gradients(layers: nn.ModuleDict, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    for parameter in layers.parameters():
        parameter.grad = torch.randn(parameter.shape, generator=generator)


def test_a_hidden_kernel_moves_alike_in_all_directions_and_an_edge_by_its_own_gradient():
    layers = network()
    before = copy.deepcopy(layers)
    give_gradients(layers, 1)
    optimiser_of(layers, muon=True).step()
    moves = {
        name: (new - old).detach()
        for (name, new), old in zip(layers.named_parameters(), before.parameters(), strict=True)
    }
    stretches = torch.linalg.svdvals(moves["hidden.weight"].flatten(1))
    # The scale that lets it take AdamW's rate: 0.2 * sqrt(longest side), within what five iterations leave.
    assert (stretches / (0.1 * 0.2 * 54**0.5)).tolist() == pytest.approx([1.0] * 4, rel=0.4)
    assert moves["conv_in.weight"].abs().flatten().tolist() == pytest.approx(
        [0.1] * 108, rel=1e-3
    )  # AdamW's first step is the sign


@pytest.mark.parametrize("muon", [True, False])
def test_every_parameter_moves_even_from_storage_given_to_it_between_two_steps(muon: bool):
    layers = network()
    optimiser = optimiser_of(layers, muon=muon)
    for seed in range(2):
        vector = nn.utils.parameters_to_vector(layers.parameters()).detach()
        nn.utils.vector_to_parameters(vector.clone(), layers.parameters())  # as averaging over processes does
        before = [parameter.detach().clone() for parameter in layers.parameters()]
        give_gradients(layers, seed)
        optimiser.step()
        assert all(not torch.equal(old, new) for old, new in zip(before, layers.parameters(), strict=True))
    optimiser.zero_grad()
    assert all(parameter.grad is None for parameter in layers.parameters())


def test_it_goes_on_from_its_state_as_if_it_had_never_stopped():
    unbroken, resumed = network(), network()
    first, second = optimiser_of(unbroken, muon=True), optimiser_of(resumed, muon=True)
    give_gradients(unbroken, 1)
    first.step()
    resumed.load_state_dict(unbroken.state_dict())
    second.load_state_dict(copy.deepcopy(first.state_dict()))
    for layers, optimiser in ((unbroken, first), (resumed, second)):
        give_gradients(layers, 2)
        optimiser.step()
    assert all(torch.equal(a, b) for a, b in zip(unbroken.parameters(), resumed.parameters(), strict=True))


def test_a_state_of_other_parts_is_refused():
    with pytest.raises(ValueError, match="doesn't match"):
        optimiser_of(network(), muon=True).load_state_dict(optimiser_of(network(), muon=False).state_dict())
