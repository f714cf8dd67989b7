"""The one edit path: prompts and concepts to keys and values, and the U-Net that reads them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from diffusers import UNet2DConditionModel
from torch import Tensor

from tests.engine.concepts import random_concept
from workers.engine.attention import Conditioning
from workers.engine.base_model import BaseModel
from workers.engine.conditioning import ConceptUse, Prompt
from workers.engine.errors import (
    ConceptsTooSimilar,
    ConceptUnused,
    CovarianceMissing,
    PlaceholderAmbiguous,
    SettingsInvalid,
)
from workers.engine.perfusion.concept import KeyLock


def use(base: BaseModel, name: str, seed: int, *, superclass: str = "cat", key_lock: str = "local") -> ConceptUse:
    concept = random_concept(base, seed, superclass=superclass, keys=key_lock == "trained")
    return ConceptUse(name, concept, gate_bias=0.6, gate_temperature=0.15, key_lock=KeyLock(key_lock))


def condition(base: BaseModel, *prompts: Prompt) -> Conditioning:
    with torch.no_grad():
        return base.conditioner.condition(prompts)


def assert_close(one: Conditioning, other: Conditioning) -> None:
    torch.testing.assert_close(one.keys, other.keys, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(one.values, other.values, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("batch", [1, 3])
def test_without_concepts_the_unet_is_bit_equal_to_diffusers_own(
    tiny: BaseModel, tiny_folder: Path, batch: int
) -> None:
    plain = UNet2DConditionModel.from_pretrained(tiny_folder, subfolder="unet", low_cpu_mem_usage=False).eval()
    generator = torch.Generator().manual_seed(0)
    x, timesteps = torch.randn(batch, 4, 8, 8, generator=generator), torch.arange(batch) * 300
    prompts = [Prompt(f"a red cat {'on ' * index}") for index in range(batch)]
    with torch.no_grad():
        encodings = tiny.conditioner.encode(prompts).value_encodings
        expected = plain(x, timesteps, encoder_hidden_states=encodings).sample
        output = tiny.denoiser.output(x, timesteps, tiny.conditioner.condition(prompts))
    assert torch.equal(output, expected)


def test_each_layer_finds_its_own_slice(tiny: BaseModel) -> None:
    conditioning = condition(tiny, Prompt("a red cat"))
    encodings = tiny.conditioner.encode([Prompt("a red cat")]).value_encodings
    modules = dict(tiny.denoiser.unet.named_modules())
    for index, name in enumerate(tiny.projections.names):
        key, value = conditioning.layer(index)
        assert torch.equal(key, modules[name].to_k(encodings))
        assert torch.equal(value, modules[name].to_v(encodings))


@pytest.mark.parametrize("key_lock", ["local", "global", "trained"])
def test_the_edit_equals_equation_3_written_out_for_one_layer(tiny: BaseModel, key_lock: str) -> None:
    prompt = Prompt("a photo of <tom> on a hat", (use(tiny, "tom", 1, key_lock=key_lock),))
    concept, covariance = prompt.concepts[0].concept, tiny.covariance
    assert covariance is not None
    encoded = tiny.conditioner.encode([prompt])
    e, key_e = encoded.value_encodings[0], encoded.key_encodings[0]  # (N, D)
    u = covariance.inverse @ concept.target_input
    u = u / (concept.target_input @ u)

    def eq3(weight: Tensor, output: Tensor) -> Tensor:
        r = e @ u
        g = torch.sigmoid((r - 0.6) / 0.15)
        return (e - torch.outer(r, concept.target_input)) @ weight.T + torch.outer(g, output)

    value_weight, key_weight = tiny.projections.values, tiny.projections.keys
    keys = {
        "local": eq3(key_weight, key_weight @ concept.superclass_encoding),
        "global": key_e @ key_weight.T,
        "trained": key_weight.new_zeros(()) if concept.key_outputs is None else eq3(key_weight, concept.key_outputs),
    }
    conditioning = condition(tiny, prompt)
    values = eq3(value_weight, concept.value_outputs)
    torch.testing.assert_close(conditioning.values[0], values, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(conditioning.keys[0], keys[key_lock], atol=1e-4, rtol=1e-4)


def test_keys_that_were_not_learned_are_asked_for_in_vain(tiny: BaseModel) -> None:
    learned = use(tiny, "tom", 1, key_lock="trained")
    locked = replace(learned, concept=replace(learned.concept, key_outputs=None))
    with pytest.raises(SettingsInvalid, match="<tom>"):
        condition(tiny, Prompt("a <tom>", (locked,)))


@pytest.mark.parametrize("superclass", ["cat", "teddy bear"])
def test_a_globally_locked_concept_takes_all_keys_from_the_superclass_prompt(tiny: BaseModel, superclass: str) -> None:
    locked = condition(tiny, Prompt("a <tom> on red", (use(tiny, "tom", 1, superclass=superclass, key_lock="global"),)))
    plain = condition(tiny, Prompt(f"a {superclass} on red"))
    shift = len(superclass.split()) - 1  # "teddy" has no counterpart; "bear" lines up with <tom>
    expected = torch.cat([plain.keys[:, :2], plain.keys[:, 2 + shift :], plain.keys[:, -1:].expand(-1, shift, -1)], 1)
    torch.testing.assert_close(locked.keys, expected)
    assert not torch.isclose(locked.values, plain.values).all()


def test_local_and_global_locks_mix_in_one_prompt(tiny: BaseModel) -> None:
    tom, rex = use(tiny, "tom", 1, key_lock="global"), use(tiny, "rex", 2, superclass="dog")
    mixed = condition(tiny, Prompt("<tom> on <rex>", (tom, rex)))
    spelled = condition(tiny, Prompt("cat on <rex>", (rex,)))
    torch.testing.assert_close(mixed.keys, spelled.keys, atol=1e-5, rtol=1e-5)


def test_samples_of_a_mixed_batch_equal_the_same_prompts_alone(tiny: BaseModel) -> None:
    prompts = [
        Prompt("a red cat"),
        Prompt("a <tom> on a hat", (use(tiny, "tom", 1),)),
        Prompt("<rex> on <tom>", (use(tiny, "tom", 2, key_lock="global"), use(tiny, "rex", 3, superclass="dog"))),
        Prompt("the <ted>", (use(tiny, "ted", 4, superclass="teddy bear", key_lock="global"),)),
    ]
    together = condition(tiny, *prompts)
    for index, prompt in enumerate(prompts):
        assert_close(together.select(torch.tensor([index])), condition(tiny, prompt))
    assert torch.equal(together.values[0], condition(tiny, prompts[0]).values[0])  # no concept, not one bit changed


def test_the_order_in_which_concepts_are_listed_does_not_matter(tiny: BaseModel) -> None:
    tom, rex = use(tiny, "tom", 1), use(tiny, "rex", 2)
    one, other = (condition(tiny, Prompt("<tom> on <rex>", uses)) for uses in ((tom, rex), (rex, tom)))
    assert_close(one, other)


def test_gradients_reach_the_learned_vectors_through_text_encoder_and_edit(tiny: BaseModel) -> None:
    concept = random_concept(tiny, 1)
    learned = replace(
        concept, value_outputs=concept.value_outputs.requires_grad_(), embedding=concept.embedding.requires_grad_()
    )
    prompt = Prompt("a <tom>", (ConceptUse("tom", learned, 0.75, 0.1),))
    conditioning = tiny.conditioner.condition([prompt])
    tiny.denoiser.output(torch.ones(1, 4, 8, 8), torch.tensor([500]), conditioning).square().sum().backward()
    for vector in (learned.value_outputs, learned.embedding):
        assert vector.grad is not None
        assert bool((vector.grad != 0).any())
    assert all(parameter.grad is None for parameter in tiny.denoiser.unet.parameters())


def test_nearly_parallel_concepts_are_refused(tiny: BaseModel) -> None:
    tom = use(tiny, "tom", 1)
    with pytest.raises(ConceptsTooSimilar, match="<tom> and <twin>"):
        condition(tiny, Prompt("<tom> <twin>", (tom, replace(tom, name="twin"))))


def test_a_concept_the_prompt_never_names_is_refused(tiny: BaseModel) -> None:
    with pytest.raises(ConceptUnused, match="<tom>"):
        condition(tiny, Prompt("a cat", (use(tiny, "tom", 1),)))


def test_two_concepts_under_one_name_are_refused(tiny: BaseModel) -> None:
    with pytest.raises(PlaceholderAmbiguous):
        condition(tiny, Prompt("<tom>", (use(tiny, "tom", 1), use(tiny, "tom", 2))))


def test_concepts_need_a_covariance_and_plain_prompts_do_not(tiny: BaseModel) -> None:
    bare = replace(tiny, covariance=None)
    condition(bare, Prompt("a cat"))
    with pytest.raises(CovarianceMissing):
        condition(bare, Prompt("<tom>", (use(tiny, "tom", 1),)))
