"""A student as one file: what it keeps, what it shares with its teacher, and what is refused."""

from __future__ import annotations

import json
import pickle
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from tests.engine.concepts import random_concept
from tests.engine.conftest import load
from tests.engine.tiny import build_tiny_pipeline
from workers.engine.base_model import BaseModel
from workers.engine.conditioning import ConceptUse
from workers.engine.dmd.networks import UNetScore, weights_digest
from workers.engine.dmd.student_file import load_student, save_student
from workers.engine.dmd.student_model import StudentFacts, export_student
from workers.engine.errors import ModelUnreadable, StudentMismatch, TrainingDiverged
from workers.engine.generation import GenerationRequest, generate
from workers.engine.tensor_file import read_tensors, write_tensors

FACTS = StudentFacts("tiny", (999, 499), guidance=3.0, key_locked=True, steps=10)
REQUEST = GenerationRequest("a red cat", seed=5, steps=2, guidance=1.0, width=16, height=16)
Metadata = dict[str, str]
Weights = dict[str, Tensor]


def learned(base: BaseModel) -> UNetScore:
    """A student that differs from its teacher in every weight but the locked ones."""
    network = UNetScore.copy_of(base.denoiser.unet, base.denoiser.schedule, autocast=False)
    network.lock_keys()
    generator = torch.Generator().manual_seed(0)
    for parameter in network.trained().values():
        parameter.data += 0.05 * torch.randn(parameter.shape, generator=generator)
    return network


@pytest.fixture(scope="module")
def network(tiny: BaseModel) -> UNetScore:
    return learned(tiny)


@pytest.fixture
def path(tiny: BaseModel, network: UNetScore, tmp_path: Path) -> Path:
    """The file of a student of the miniature model."""
    save_student(tmp_path / "student.safetensors", network.unet, FACTS, tiny)
    return tmp_path / "student.safetensors"


def picture(base: BaseModel, request: GenerationRequest = REQUEST) -> np.ndarray[tuple[int, ...], np.dtype[np.uint8]]:
    (drawn,) = generate(base, [request], batch_size=1, on_progress=lambda *_: None, should_stop=lambda: False)
    assert isinstance(drawn, Image.Image), drawn
    return np.asarray(drawn)


def test_a_file_takes_two_bytes_a_weight_and_is_as_large_as_is_told(
    tiny: BaseModel, network: UNetScore, tmp_path: Path
) -> None:
    path = tmp_path / "student.safetensors"
    size = save_student(path, network.unet, FACTS, tiny)
    weights = sum(parameter.numel() for parameter in network.unet.parameters())
    assert size == path.stat().st_size
    assert 2 * weights < size < 2 * weights + 64_000
    assert [entry.name for entry in tmp_path.iterdir()] == ["student.safetensors"]


def test_a_student_draws_what_its_model_folder_draws(
    tiny: BaseModel, tiny_folder: Path, network: UNetScore, path: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "folder"
    export_student(network.unet, FACTS, name="s", teacher=tiny_folder, folder=folder, dtype=torch.float16)
    student = load_student(path, tiny)
    assert student.student == FACTS
    assert np.array_equal(picture(student), picture(load(folder)))


def test_a_student_shares_everything_with_its_teacher_but_the_unet(tiny: BaseModel, path: Path) -> None:
    student = load_student(path, tiny)
    for part in ("text", "autoencoder", "covariance", "perfusion", "distillation", "device"):
        assert getattr(student, part) is getattr(tiny, part)
    assert student.denoiser.schedule is tiny.denoiser.schedule
    assert weights_digest(student.denoiser.unet) != weights_digest(tiny.denoiser.unet)
    torch.testing.assert_close(student.projections.keys, tiny.projections.keys, atol=1e-3, rtol=1e-3)  # locked
    assert not any(parameter.requires_grad for parameter in student.denoiser.unet.parameters())


def test_opening_a_student_leaves_its_teacher_as_it_was(tiny: BaseModel, path: Path) -> None:
    request = replace(REQUEST, steps=3, guidance=2.0)
    before = picture(tiny, request)
    load_student(path, tiny)
    assert np.array_equal(picture(tiny, request), before)


def test_a_concept_of_the_teacher_is_drawn_by_its_student(tiny: BaseModel, path: Path) -> None:
    student = load_student(path, tiny)
    use = ConceptUse("tom", random_concept(tiny, 1), gate_bias=0.6, gate_temperature=0.15)
    with_concept = picture(student, replace(REQUEST, prompt="a red <tom>", concepts=(use,)))
    assert np.abs(picture(student).astype(int) - with_concept).max() > 1


def test_a_student_made_in_one_precision_is_served_in_another(tiny: BaseModel, tiny_folder: Path, path: Path) -> None:
    half = BaseModel.load(tiny_folder, device=torch.device("cpu"), dtype=torch.bfloat16)
    student = load_student(path, half)
    assert student.denoiser.dtype == torch.bfloat16
    difference = np.abs(picture(student).astype(int) - picture(load_student(path, tiny)))
    assert difference.mean() < 8  # of 255


def test_weights_that_half_precision_cannot_hold_leave_no_file(tiny: BaseModel, tmp_path: Path) -> None:
    broken = learned(tiny)
    broken.unet.conv_in.weight.data.mul_(1e9)
    with pytest.raises(TrainingDiverged, match="half precision"):
        save_student(tmp_path / "student.safetensors", broken.unet, FACTS, tiny)
    assert list(tmp_path.iterdir()) == []


def test_the_student_of_other_weights_or_another_text_encoder_is_refused(
    tiny: BaseModel, tiny_folder: Path, path: Path, tmp_path: Path
) -> None:
    with pytest.raises(StudentMismatch, match="other weights"):
        load_student(path, load(build_tiny_pipeline(tmp_path / "other", seed=1)))
    elsewhere = load(tiny_folder)
    elsewhere.text.towers[0].model.final_layer_norm.bias.data += 1
    with pytest.raises(StudentMismatch):
        load_student(path, elsewhere)


def wrong_configuration(_: Weights, metadata: Metadata) -> None:
    metadata["unet"] = json.dumps(json.loads(metadata["unet"]) | {"block_out_channels": [1 << 20, 1 << 20]})


def late_timestep(_: Weights, metadata: Metadata) -> None:
    metadata["student"] = json.dumps(json.loads(metadata["student"]) | {"timesteps": [1000]})


def no_facts(_: Weights, metadata: Metadata) -> None:
    metadata["student"] = "null"


def other_format(_: Weights, metadata: Metadata) -> None:
    metadata["format"] = "lockstep-student/9"


def no_json(_: Weights, metadata: Metadata) -> None:
    metadata["unet"] = "{"


def nothing_said(_: Weights, metadata: Metadata) -> None:
    metadata.clear()


def no_encoder(_: Weights, metadata: Metadata) -> None:
    del metadata["encoder"]


def missing_weight(weights: Weights, _: Metadata) -> None:
    del weights["conv_in.weight"]


def extra_weight(weights: Weights, _: Metadata) -> None:
    weights["conv_in.more"] = torch.zeros(3)


def other_shape(weights: Weights, _: Metadata) -> None:
    weights["conv_in.weight"] = weights["conv_in.weight"][:1]


def not_finite(weights: Weights, _: Metadata) -> None:
    weights["conv_in.bias"][0] = torch.nan


def whole_numbers(weights: Weights, _: Metadata) -> None:
    weights["conv_in.bias"] = torch.zeros(16, dtype=torch.int8)


@pytest.mark.parametrize(
    "spoil",
    [
        wrong_configuration, late_timestep, no_facts, other_format, no_json, nothing_said, no_encoder,
        missing_weight, extra_weight, other_shape, not_finite, whole_numbers,
    ],
)  # fmt: skip
def test_a_file_that_was_tampered_with_is_refused(
    tiny: BaseModel, path: Path, spoil: Callable[[Weights, Metadata], None]
) -> None:
    weights, metadata = read_tensors(path)
    spoil(weights, metadata)
    write_tensors(path, weights, metadata)
    with pytest.raises(ModelUnreadable):
        load_student(path, tiny)


@pytest.mark.parametrize("content", [b"", b"not a student", pickle.dumps({"conv_in.weight": 1})])
def test_what_is_no_safetensors_file_is_refused(tiny: BaseModel, path: Path, content: bytes) -> None:
    path.write_bytes(content)
    with pytest.raises(ModelUnreadable):
        load_student(path, tiny)
    path.unlink()
    with pytest.raises(ModelUnreadable):
        load_student(path, tiny)


def test_a_file_that_was_cut_off_is_refused(tiny: BaseModel, path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(ModelUnreadable):
        load_student(path, tiny)
