"""What each rival learns, and what it leaves as it was."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch

from tests.benchmarks.perfusion import fitting
from tests.benchmarks.perfusion.fitting import RivalConfig
from tests.benchmarks.perfusion.methods import TEACHER
from tests.benchmarks.perfusion.rivals import (
    RARE,
    WORD,
    custom_diffusion,
    dreambooth_lora,
    textual_inversion,
    with_word,
)
from tests.benchmarks.subjects import subjects
from workers.engine.base_model import BaseModel
from workers.engine.dmd.networks import weights_digest
from workers.engine.errors import TrainingDiverged
from workers.engine.storybook.drawing import load_model

RIVAL = RivalConfig(steps=2, batch_size=2, lr=1e-2)


@pytest.fixture(scope="module")
def storybook() -> BaseModel:
    return load_model(TEACHER)


def cross_weights(base: BaseModel) -> torch.Tensor:
    return torch.cat([base.projections.keys, base.projections.values])


def changed_in(base: BaseModel, made: BaseModel) -> dict[str, tuple[torch.Tensor, torch.Tensor]]:
    before, after = (dict(model.denoiser.unet.named_parameters()) for model in (base, made))
    assert before.keys() == after.keys()
    return {name: (before[name], after[name]) for name in before if not torch.equal(before[name], after[name])}


def test_textual_inversion_learns_a_word_and_nothing_else(storybook: BaseModel):
    photos = subjects(1)[0].photos()
    made = textual_inversion(storybook, photos, "cat", RIVAL, seed=0)
    assert torch.equal(cross_weights(made.base), cross_weights(storybook))
    start, token = with_word(storybook, "cat")
    (learned,), (before,) = made.base.text.token_embeddings(token), start.text.token_embeddings(token)
    (cat,) = storybook.text.token_embeddings(storybook.text.tokens("cat")[-1])
    assert torch.equal(before, cat)
    assert not torch.equal(learned, before)
    assert made.bytes == 2 * storybook.text.width
    assert made.base.text.tokens(f"a {WORD} hat").count(token) == 1
    assert made.base.text.tokens("a cat") == storybook.text.tokens("a cat")


@pytest.mark.parametrize("like", ["cat", RARE])
def test_a_new_word_says_at_first_what_another_says(storybook: BaseModel, like: str):
    taught, _ = with_word(storybook, like)
    rows = [
        taught.text.row(taught.text.tokens(prompt)) for prompt in (f"a {WORD} in the snow", f"a {like} in the snow")
    ]
    one, other = taught.text.encode(rows)
    torch.testing.assert_close(one, other)


def test_the_rare_word_is_one_token_that_no_prompt_holds(storybook: BaseModel):
    (rare,) = storybook.text.tokens(RARE)
    assert not any(rare in storybook.text.tokens(prompt) for prompt in storybook.prompts[:500])
    assert storybook.text.tokens(f"a {RARE} cat") == [*storybook.text.tokens("a"), rare, *storybook.text.tokens("cat")]


@pytest.mark.parametrize("prior", [False, True])
def test_dreambooth_learns_low_rank_updates_of_all_attention(
    storybook: BaseModel, monkeypatch: pytest.MonkeyPatch, prior: bool
):
    monkeypatch.setattr(fitting, "_PRIOR_STEPS", 1)
    config = RivalConfig(steps=2, batch_size=2, lr=1e-2, rank=2, prior=prior)
    made = dreambooth_lora(storybook, subjects(1)[0].photos(), "cat", config, seed=0)
    changed = changed_in(storybook, made.base)
    assert changed
    assert all(".attn1." in name or ".attn2." in name for name in changed)
    for before, after in changed.values():
        assert int(torch.linalg.matrix_rank(after - before, atol=1e-6)) <= config.rank
    assert made.bytes % 2 == 0
    assert made.thing == f"a {RARE} cat"
    assert made.base.text is storybook.text
    assert not torch.equal(cross_weights(made.base), cross_weights(storybook))


def test_custom_diffusion_learns_keys_and_values_and_a_word_that_starts_rare(storybook: BaseModel):
    config = replace(RIVAL, word_lr=1e-3)
    made = custom_diffusion(storybook, subjects(1)[0].photos(), "cat", config, seed=0)
    changed = changed_in(storybook, made.base)
    every = [name for name, _ in storybook.denoiser.unet.named_parameters()]
    assert set(changed) == {name for name in every if ".attn2.to_k" in name or ".attn2.to_v" in name}
    assert made.bytes == 2 * (sum(after.numel() for _, after in changed.values()) + storybook.text.width)
    (rare,) = storybook.text.token_embeddings(*storybook.text.tokens(RARE))
    (learned,) = made.base.text.token_embeddings(*made.base.text.tokens(WORD))
    assert 0 < float((learned - rare).abs().max()) <= 1.01 * config.steps * config.word_lr


def test_a_rivals_training_is_its_seeds(storybook: BaseModel):
    photos = subjects(1)[0].photos()
    weights = [cross_weights(dreambooth_lora(storybook, photos, "cat", RIVAL, seed=seed).base) for seed in (0, 0, 1)]
    assert torch.equal(weights[0], weights[1])
    assert not torch.equal(weights[0], weights[2])


def test_the_base_model_is_left_as_it_was(storybook: BaseModel):
    before = weights_digest(storybook.denoiser.unet), storybook.text.fingerprint()
    custom_diffusion(storybook, subjects(1)[0].photos(), "cat", RIVAL, seed=0)
    assert (weights_digest(storybook.denoiser.unet), storybook.text.fingerprint()) == before


@pytest.mark.parametrize("learn", [textual_inversion, custom_diffusion, dreambooth_lora])
def test_a_rival_that_diverges_says_so(storybook: BaseModel, learn: Callable[..., Any]):
    photos = subjects(1)[0].photos()
    with pytest.raises(TrainingDiverged):
        learn(storybook, photos, "cat", replace(RIVAL, lr=1e30, word_lr=1e30), seed=0)
