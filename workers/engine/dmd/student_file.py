"""A student as one file: its U-Net, for a teacher that the reader has already.

Everything else of a student (text encoder, autoencoder, covariance) is its teacher's, so one teacher in memory serves
all its students. One safetensors file, fp16:

    tensors    the U-Net's, under diffusers' names
    metadata   format, unet (its configuration, JSON), student (StudentFacts, JSON), teacher (hash of its U-Net),
               encoder (fingerprint of its text encoder)

The file comes out of storage, so nothing in it is believed: it is never unpickled, the network it is read into is the
teacher's, and what does not fit that is refused.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path

import torch
from diffusers import UNet2DConditionModel
from safetensors import SafetensorError
from torch import Tensor

from workers.engine import attention
from workers.engine.attention import KeyValueProjections
from workers.engine.base_model import BaseModel
from workers.engine.denoiser import Denoiser
from workers.engine.dmd.student_model import StudentFacts, are_finite, configuration
from workers.engine.errors import ModelUnreadable, StudentMismatch, TrainingDiverged
from workers.engine.tensor_file import read_tensors, write_tensors

FORMAT = "lockstep-student/1"


def save_student(path: Path, unet: UNet2DConditionModel, facts: StudentFacts, teacher: BaseModel) -> int:
    """Write a student of ``teacher`` and return the file's size in bytes.

    Half precision holds what an average of small steps holds, in half the room. Raises TrainingDiverged for weights
    that are not finite in it.
    """
    weights = {name: tensor.detach().half() for name, tensor in unet.state_dict().items()}
    if not are_finite(weights):
        raise TrainingDiverged("the student holds weights that are not finite in half precision")
    write_tensors(
        path,
        weights,
        {
            "format": FORMAT,
            "unet": json.dumps(configuration(unet)),
            "student": json.dumps(asdict(facts)),
            "teacher": teacher.weights,
            "encoder": teacher.fingerprint,
        },
    )
    return path.stat().st_size


def load_student(path: Path, teacher: BaseModel) -> BaseModel:
    """Open a student beside its teacher, whose every other part it shares.

    It runs where and in the precision in which the teacher does. Raises StudentMismatch for the student of another
    model, ModelUnreadable for a file that is damaged or none.
    """
    try:
        weights, metadata = read_tensors(path)
        facts = _facts(metadata, teacher)
        unet = _unet(weights, metadata, teacher)
    except torch.OutOfMemoryError:  # a RuntimeError, and not the file's fault
        raise
    except (OSError, SafetensorError, KeyError, ValueError, OverflowError, RuntimeError) as error:
        raise ModelUnreadable(f"{path.name} is not a student's file: {error}") from error
    projections = KeyValueProjections.of(unet)
    attention.install(unet, projections)
    return replace(
        teacher,
        name=f"student of {teacher.name}",
        projections=projections,
        denoiser=Denoiser(unet, teacher.denoiser.schedule),
        student=facts,
    )


def _facts(metadata: Mapping[str, str], teacher: BaseModel) -> StudentFacts:
    """Check what the file says of itself and return how the student draws."""
    if metadata.get("format") != FORMAT:
        raise ModelUnreadable(f"a file of format {metadata.get('format')!r} where {FORMAT!r} is due")
    facts = StudentFacts.of({"student": json.loads(metadata["student"])})
    if facts is None or max(facts.timesteps) >= teacher.denoiser.schedule.timesteps:
        raise ModelUnreadable("the file does not say at which timesteps its student draws")
    if (metadata["teacher"], metadata["encoder"]) != (teacher.weights, teacher.fingerprint):
        raise StudentMismatch(
            f"this is a student of {facts.teacher!r} with other weights than {teacher.name!r} has here"
        )
    return facts


def _unet(weights: Mapping[str, Tensor], metadata: Mapping[str, str], teacher: BaseModel) -> UNet2DConditionModel:
    """Read the weights into a network like the teacher's."""
    shape = configuration(teacher.denoiser.unet)
    if json.loads(metadata["unet"]) != json.loads(json.dumps(shape)):
        raise ModelUnreadable("its U-Net is not shaped like its teacher's")
    if not all(tensor.is_floating_point() for tensor in weights.values()) or not are_finite(weights):
        raise ModelUnreadable("it holds weights that are not finite numbers")
    unet = UNet2DConditionModel.from_config(shape)
    unet.load_state_dict(weights)  # of these names and shapes and no others
    unet.requires_grad_(False).eval().to(device=teacher.device, dtype=teacher.denoiser.dtype)
    return unet
