"""What a model says of itself: ``lockstep.json`` beside its weights, or what its family leaves to assume."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, field_validator

_FILE = "lockstep.json"
_INDEX = "model_index.json"
_PROMPTS = "prompts.txt"
# What a pipeline's class leaves to assume, where that is not what ModelFacts does.
_FAMILIES: dict[str, dict[str, Any]] = {
    "StableDiffusionXLPipeline": {"family": "stable-diffusion-xl", "size": 1024, "max_size": 2048},
}
_GATE_BIAS = {"local": 0.7, "global": 0.5, "trained": 0.7}


class StudentFacts(BaseModel):
    """How a student draws: one step at each of its timesteps, without guidance."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    teacher: str
    timesteps: tuple[int, ...] = Field(min_length=1)


class ConceptSpace(BaseModel):
    """Where concepts of a base model live: a concept of another encoder, metric or U-Net means nothing there."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    encoder: str  # fingerprint of the text encoder's weights and vocabulary
    covariance: str  # SHA-256 of the metric
    layer_widths: tuple[int, ...]  # of the cross-attention layers, in the U-Net's order


class ModelFacts(BaseModel):
    """Facts the product uses: defaults of a request, and what can be asked for."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    name: str
    family: str = "stable-diffusion"
    size: int = 512  # pixels a side; other sizes must be multiples of `size_multiple`
    size_multiple: int = 64
    max_size: int = 1024
    default_steps: int = 50
    default_guidance: float = 6.0
    default_key_lock: str = "local"
    gate_bias: dict[str, float] = Field(default_factory=lambda: dict(_GATE_BIAS))  # by key lock
    gate_temperature: float = 0.15
    superclasses: tuple[str, ...] = ()  # empty: any word
    prompts: int = 0  # how many prompts it brings along to be distilled with
    default_pairs: int = 10_000  # teacher pairs of a distillation
    perfusion: dict[str, Any] = Field(default_factory=dict)  # training settings, which the engine reads by itself
    distillation: dict[str, Any] = Field(default_factory=dict)  # the same for distillations
    concept_space: ConceptSpace | None = None  # None: not known here, so only workers can tell what fits
    student: StudentFacts | None = None

    @field_validator("gate_bias")
    @classmethod
    def _complete(cls, bias: dict[str, float]) -> dict[str, float]:
        """A model may say less than every lock's."""
        return _GATE_BIAS | bias

    def as_student(self, name: str, student: StudentFacts) -> ModelFacts:
        """The facts of a student of this model: everything but how it draws is its teacher's."""
        own = {
            "name": name,
            "default_steps": len(student.timesteps),
            "default_guidance": 1.0,
            "prompts": 0,
            "distillation": {},
            "student": student,
        }
        return self.model_copy(update=own)


def read_facts(location: str) -> ModelFacts:
    """The facts of a model folder, with what its family has for those it leaves out.

    A folder that has no name for itself goes by its own. So does a hub id, which is taken for a Stable Diffusion
    1.x/2.x model, as its files are not looked at here. A student's folder says how its teacher draws, too.
    """
    folder = Path(location)
    said = _read_json(folder / _FILE)
    assumed = _FAMILIES.get(str(_read_json(folder / _INDEX).get("_class_name")), {})
    assumed = {"name": location.rstrip("/").rsplit("/", 1)[-1].lower(), **assumed}
    facts = ModelFacts.model_validate({**assumed, **said, "prompts": _count_prompts(folder / _PROMPTS)})
    return facts if facts.student is None else facts.as_student(facts.name, facts.student)


def _read_json(file: Path) -> dict[str, Any]:
    read: dict[str, Any] = json.loads(file.read_text()) if file.is_file() else {}
    return read


def _count_prompts(file: Path) -> int:
    return sum(bool(line.strip()) for line in file.read_text().splitlines()) if file.is_file() else 0
