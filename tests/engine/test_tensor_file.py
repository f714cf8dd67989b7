"""Tensor files are there whole or not at all."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors import SafetensorError

from workers.engine.tensor_file import read_tensors, write_tensors


def test_what_is_written_is_read_back(tmp_path: Path) -> None:
    tensors = {"a": torch.arange(6.0).view(2, 3).T, "b": torch.tensor(3, dtype=torch.int64)}
    write_tensors(tmp_path / "file.safetensors", tensors, {"fact": "1"})
    read, facts = read_tensors(tmp_path / "file.safetensors")
    assert facts == {"fact": "1"}
    assert all(torch.equal(read[name], tensor) for name, tensor in tensors.items())
    assert [path.name for path in tmp_path.iterdir()] == ["file.safetensors"]


def test_a_write_that_fails_leaves_the_file_that_was_there(tmp_path: Path) -> None:
    path = tmp_path / "file.safetensors"
    write_tensors(path, {"a": torch.ones(2)}, {})
    path.with_suffix(".partial").mkdir()  # nothing can be written there
    with pytest.raises((OSError, SafetensorError)):
        write_tensors(path, {"a": torch.zeros(2)}, {})
    assert torch.equal(read_tensors(path)[0]["a"], torch.ones(2))


def test_a_file_cut_short_is_not_read(tmp_path: Path) -> None:
    path = tmp_path / "file.safetensors"
    write_tensors(path, {"a": torch.ones(200)}, {})
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises((OSError, SafetensorError)):
        read_tensors(path)
