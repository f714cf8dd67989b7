"""The text encoder's wrapper."""

from __future__ import annotations

from pathlib import Path

import torch

from tests.engine.conftest import load
from tests.engine.tiny import build_tiny_pipeline
from workers.engine.base_model import BaseModel


def test_replacing_an_embedding_by_itself_changes_nothing(tiny: BaseModel) -> None:
    tokens = tiny.text.tokens("a cat")
    rows = [tiny.text.row(tokens)]
    replaced = tiny.text.encode(rows, {(0, 2): tiny.text.token_embedding(tokens[1])})
    assert torch.equal(replaced, tiny.text.encode(rows))


def test_a_replaced_embedding_reaches_its_own_prompt_from_its_position_on_and_no_other(tiny: BaseModel) -> None:
    rows = [tiny.text.row(tiny.text.tokens("a cat on a hat"))] * 2
    replaced = tiny.text.encode(rows, {(1, 2): torch.ones(32)})
    plain = tiny.text.encode(rows)
    assert torch.equal(replaced[0], plain[0])
    assert torch.equal(replaced[1, :2], plain[1, :2])  # the encoder is causal
    assert not torch.isclose(replaced[1, 2:], plain[1, 2:]).all(-1).any()


def test_an_embedding_gets_a_gradient_and_the_encoder_none(tiny: BaseModel) -> None:
    embedding = torch.ones(32, requires_grad=True)
    tiny.text.encode([tiny.text.row(tiny.text.tokens("a cat"))], {(0, 2): embedding}).square().sum().backward()
    assert embedding.grad is not None
    assert embedding.grad.abs().sum() > 0
    assert all(parameter.grad is None for parameter in tiny.text.model.parameters())


def test_no_hook_outlives_a_call(tiny: BaseModel) -> None:
    tiny.text.encode([tiny.text.row([])], {(0, 0): torch.ones(32)})
    assert not tiny.text.model.get_input_embeddings()._forward_hooks


def test_the_fingerprint_names_the_weights(tiny: BaseModel, tmp_path: Path) -> None:
    again = load(build_tiny_pipeline(tmp_path / "same", seed=0))
    other = load(build_tiny_pipeline(tmp_path / "other", seed=1))
    assert again.fingerprint == tiny.fingerprint
    assert other.fingerprint != tiny.fingerprint
