"""A warm model's caches: concepts opened once, prompts conditioned once, the same whatever is beside them."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from tests.engine.concepts import concept_file, random_concept
from workers.engine.attention import Conditioning
from workers.engine.base_model import BaseModel
from workers.engine.byte_cache import ByteCache
from workers.engine.conditioning import ConceptUse, Prompt
from workers.engine.errors import PlaceholderUnknown
from workers.engine.perfusion.concept import KeyLock
from workers.engine.warm import WarmModel

SIZE = (16, 16)


def use(base: BaseModel, seed: int, name: str = "tom", bias: float = 0.6) -> ConceptUse:
    return ConceptUse(name, random_concept(base, seed), gate_bias=bias, gate_temperature=0.15)


def equal(one: Conditioning, other: Conditioning) -> bool:
    return torch.equal(one.keys, other.keys) and torch.equal(one.values, other.values)


def test_least_recently_used_bytes_go_first() -> None:
    cache: ByteCache[str, bytes] = ByteCache(most_bytes=10, size_of=len)
    for key, value in (("a", b"1234"), ("b", b"1234"), ("a", b"12"), ("c", b"12345")):
        cache.put(key, value)
    assert (cache.get("a"), cache.get("b"), cache.get("c")) == (b"12", None, b"12345")
    assert (cache.bytes, len(cache)) == (7, 2)
    cache.put("huge", bytes(11))
    assert cache.get("huge") is None
    assert cache.get("c") == b"12345"


def test_a_prompt_is_conditioned_once(tiny: BaseModel) -> None:
    warm, asked = WarmModel(tiny), Prompt("a <tom>", (use(tiny, 1),))
    first, plain = warm.condition([asked, Prompt("a cat")], SIZE)
    again = warm.condition([Prompt("a cat"), asked, asked], SIZE)
    assert again[0] is plain
    assert again[1] is again[2] is first


def test_the_dial_and_the_concept_are_part_of_what_was_asked(tiny: BaseModel) -> None:
    warm, one = WarmModel(tiny), use(tiny, 1)
    turned = ConceptUse(one.name, one.concept, gate_bias=0.9, gate_temperature=0.15)
    made = warm.condition([Prompt("a <tom>", (each,)) for each in (one, turned, use(tiny, 2))], SIZE)
    assert not any(equal(made[a], made[b]) for a, b in ((0, 1), (0, 2), (1, 2)))


@pytest.mark.parametrize("family", ["tiny", "storybook"])
def test_conditioning_is_the_same_to_the_bit_alone_and_in_a_crowd(family: str, request: pytest.FixtureRequest) -> None:
    base: BaseModel = request.getfixturevalue(family)
    prompts = [
        Prompt("a red cat"),
        Prompt("a <tom>", (use(base, 1),)),
        Prompt("the <tom> on <rex>", (use(base, 1), use(base, 2, "rex"))),
        Prompt("a photo of a dog"),
        Prompt("the <tom> on red", (use(base, 3),)),
        Prompt("a <tom> on red", (replace(use(base, 4), key_lock=KeyLock.GLOBAL),)),
        Prompt("the <tom>", (replace(use(base, 5), key_lock=KeyLock.GLOBAL),)),
    ]
    for prompt, together in zip(prompts, WarmModel(base).condition(prompts, SIZE), strict=True):
        assert equal(WarmModel(base).condition([prompt], SIZE)[0], together)


def test_only_a_model_that_is_told_sizes_keeps_them_apart(tiny: BaseModel, tiny_xl: BaseModel) -> None:
    plain, told = WarmModel(tiny), WarmModel(tiny_xl)
    asked = [Prompt("a cat")]
    assert plain.condition(asked, (16, 16))[0] is plain.condition(asked, (32, 16))[0]
    one, other = told.condition(asked, (16, 16))[0], told.condition(asked, (32, 16))[0]
    assert one.added is not None
    assert other.added is not None
    assert not torch.equal(one.added.time_ids, other.added.time_ids)


def test_what_cannot_be_conditioned_says_so_and_leaves_the_cache_alone(tiny: BaseModel) -> None:
    warm = WarmModel(tiny)
    with pytest.raises(PlaceholderUnknown):
        warm.condition([Prompt("a <rex>")], SIZE)
    assert warm.condition([Prompt("a cat")], SIZE)


def test_a_concept_file_is_opened_once_and_again_when_it_changed(tiny: BaseModel, tmp_path: Path) -> None:
    path, warm = tmp_path / "tom.safetensors", WarmModel(tiny)
    concept_file(tiny, random_concept(tiny, 1)).save(path)
    first = warm.concept(path)
    assert warm.concept(path) is first
    concept_file(tiny, random_concept(tiny, 2)).save(path)
    os.utime(path, ns=(1, 1))
    assert warm.concept(path).digest != first.digest
