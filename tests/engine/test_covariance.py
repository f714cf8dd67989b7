"""The metric of a text encoder."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from tests.engine.tiny import CAPTIONS
from workers.engine.base_model import BaseModel
from workers.engine.errors import ModelUnreadable
from workers.engine.perfusion.covariance import Covariance, compute_covariance, invert


def test_it_is_the_inverse_of_the_uncentred_second_moment_of_all_tokens_but_padding(tiny: BaseModel) -> None:
    captions = CAPTIONS[:7]
    tokens = []
    for caption in captions:
        ids = tiny.text.tokens(caption)
        tokens.append(tiny.text.encode([tiny.text.row(ids)])[0, : len(ids) + 2].double())
    stacked = torch.cat(tokens)
    moment = stacked.T @ stacked / len(stacked)
    expected = torch.linalg.inv(moment + 1e-3 * moment.trace() / 32 * torch.eye(32))
    covariance = compute_covariance(tiny.text, captions, ridge=1e-3)
    assert covariance.tokens == len(stacked)
    torch.testing.assert_close(covariance.inverse, expected.float(), rtol=1e-4, atol=1e-4)
    assert torch.equal(covariance.inverse, covariance.inverse.T)


def test_of_two_encoders_it_is_the_metric_of_their_encodings_side_by_side(tiny_xl: BaseModel) -> None:
    ids = tiny_xl.text.tokens(CAPTIONS[0])
    encodings = tiny_xl.text.encode([tiny_xl.text.row(ids)])[0, : len(ids) + 2].double()  # (tokens, 32 + 24)
    moment = encodings.T @ encodings / len(encodings)
    covariance = compute_covariance(tiny_xl.text, CAPTIONS[:1], ridge=1e-2)
    torch.testing.assert_close(covariance.inverse, invert(moment, ridge=1e-2), rtol=1e-3, atol=1e-3)
    assert bool(covariance.inverse[:32, 32:].any())  # what the encoders say together counts too


def test_it_does_not_depend_on_how_captions_are_batched(tiny: BaseModel) -> None:
    once = compute_covariance(tiny.text, CAPTIONS, ridge=1e-3)
    many = compute_covariance(tiny.text, CAPTIONS * 12, ridge=1e-3)  # several batches, the same distribution
    assert many.tokens == 12 * once.tokens
    torch.testing.assert_close(many.inverse, once.inverse, rtol=1e-3, atol=1e-3)


def test_the_ridge_bounds_the_condition_number() -> None:
    rank_one = torch.ones(8, 8, dtype=torch.float64)
    inverse = invert(rank_one, ridge=1e-2)
    assert float(torch.linalg.cond(inverse.double())) == pytest.approx(801, rel=1e-3)
    with pytest.raises(ValueError, match="positive definite"):
        invert(rank_one, ridge=0)


def test_a_file_comes_back_as_it_was(tiny: BaseModel, tmp_path: Path) -> None:
    covariance = compute_covariance(tiny.text, CAPTIONS[:5], ridge=1e-3)
    covariance.save(tmp_path / "c.safetensors")
    again = Covariance.load(tmp_path / "c.safetensors")
    assert torch.equal(again.inverse, covariance.inverse)
    assert (again.tokens, again.ridge, again.sha256) == (covariance.tokens, 1e-3, covariance.sha256)


def test_a_damaged_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "c.safetensors"
    path.write_bytes(b"no such thing")
    with pytest.raises(ModelUnreadable):
        Covariance.load(path)
    facts = {"tokens": "1", "ridge": "0.1", "sha256": "0" * 64}
    save_file({"inverse_covariance": torch.eye(4)}, path, metadata=facts)
    with pytest.raises(ModelUnreadable, match="damaged"):
        Covariance.load(path)
