"""A student as a model folder: its teacher's, with another U-Net and a word about how it draws.

What it shares with its teacher (text encoder, autoencoder, covariance) it holds as copies, so that the folder stands
alone, in diffusers too. ``lockstep.json`` gains

    "student": {"teacher", "timesteps", "guidance", "key_locked", "steps"}
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

import torch
from diffusers import UNet2DConditionModel
from torch import Tensor

from workers.engine.errors import ModelUnreadable, TrainingDiverged

_SHARED: Final = ("scheduler", "text_encoder", "text_encoder_2", "tokenizer", "tokenizer_2", "vae")
_FILES: Final = ("model_index.json", "covariance.safetensors")


@dataclass(frozen=True)
class StudentFacts:
    """How a student came about, and the timesteps it draws at."""

    teacher: str
    timesteps: tuple[int, ...]
    guidance: float  # the teacher's while distilling; the student takes none
    key_locked: bool
    steps: int

    @classmethod
    def of(cls, card: Mapping[str, object]) -> StudentFacts | None:
        """Read them from a model's lockstep.json, None where it is no student's; raises ModelUnreadable."""
        match card.get("student"):
            case None:
                return None
            case {
                "teacher": str(teacher),
                "timesteps": [*timesteps],
                "guidance": int() | float() as guidance,
                "key_locked": bool(key_locked),
                "steps": int(steps),
            } if timesteps and all(type(timestep) is int and timestep >= 0 for timestep in timesteps):
                return cls(teacher, tuple(timesteps), float(guidance), key_locked, steps)
            case other:
                raise ModelUnreadable(f"the model does not say what kind of student it is: {other!r}")


def configuration(unet: UNet2DConditionModel) -> dict[str, object]:
    """What shapes a network; the rest says where a copy of it came from."""
    return {key: value for key, value in unet.config.items() if not key.startswith("_")}


def are_finite(weights: Mapping[str, Tensor]) -> bool:
    """Say whether every number is one."""
    return all(bool(torch.isfinite(tensor).all()) for tensor in weights.values())


def export_student(
    unet: UNet2DConditionModel, facts: StudentFacts, *, name: str, teacher: Path, folder: Path, dtype: torch.dtype
) -> None:
    """Write a new ``folder`` for the student of the model in ``teacher``; raises TrainingDiverged for broken weights.

    ``dtype`` is that of the stored weights: float16 halves the folder and holds a teacher's float16 weights exactly.
    """
    plain = UNet2DConditionModel.from_config(configuration(unet))
    plain.load_state_dict(unet.state_dict())
    plain.to(dtype)
    if not are_finite(plain.state_dict()):
        raise TrainingDiverged(f"the student holds weights that are not finite in {dtype}")
    folder.mkdir(parents=True)
    for part in _SHARED:
        if (teacher / part).exists():
            shutil.copytree(teacher / part, folder / part)
    for file in _FILES:
        if (teacher / file).exists():
            shutil.copy2(teacher / file, folder / file)
    plain.save_pretrained(folder / "unet")
    card = _card(teacher)
    if (decoder := card.get("decoder")) is not None and (teacher / str(decoder)).is_dir():
        card["decoder"] = "decoder"
        shutil.copytree(teacher / str(decoder), folder / "decoder")
    card |= {"name": name, "student": asdict(facts)}
    (folder / "lockstep.json").write_text(json.dumps(card, indent=1) + "\n")


def link_to_teacher(folder: Path, teacher: Path) -> None:
    """Put relative links in the place of a student's copies, for two folders that stay where they are to each other."""
    for name in (*_SHARED, *_FILES):
        own = folder / name
        if own.is_dir():
            shutil.rmtree(own)
        else:
            own.unlink(missing_ok=True)
        if (teacher / name).exists():
            own.symlink_to(Path(os.path.relpath(teacher / name, folder)))


def _card(teacher: Path) -> dict[str, object]:
    path = teacher / "lockstep.json"
    card: dict[str, object] = json.loads(path.read_text()) if path.exists() else {}
    for word in (
        "validation",
        "preview",
        "segmenter",
    ):  # of trainings, with paths from its folder
        card.pop(word, None)
    return card
